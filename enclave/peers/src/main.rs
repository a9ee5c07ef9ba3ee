//! mistral.rs's own HTTP server, for `make bench` to compare with: `cocoon-enclave-peers MODEL`. It has the engine settings of
//! `cocoon_engine::baseline`, listens on a port that the system chooses, and prints its address.

use anyhow::{Context, Result};
use mistralrs_core::{AutoDeviceMapParams, ModelDType, ModelSelected, TokenSource};
use mistralrs_server_core::mistralrs_for_server_builder::MistralRsForServerBuilder;
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;

#[tokio::main]
async fn main() -> Result<()> {
    let model = std::env::args().nth(1).context("usage: cocoon-enclave-peers MODEL")?;
    let model = ModelSelected::Plain {
        model_id: model,
        tokenizer_json: None,
        arch: None,
        dtype: ModelDType::F32,
        topology: None,
        organization: None,
        write_uqff: None,
        from_uqff: None,
        imatrix: None,
        calibration_file: None,
        max_seq_len: AutoDeviceMapParams::DEFAULT_MAX_SEQ_LEN,
        max_batch_size: AutoDeviceMapParams::DEFAULT_MAX_BATCH_SIZE,
        hf_cache_path: None,
        matformer_config_path: None,
        matformer_slice_name: None,
    };
    let engine = MistralRsForServerBuilder::new()
        .with_model(model)
        .with_cpu(true)
        .with_max_seqs(1)
        // None is kept.
        .with_prefix_cache_n(0)
        .with_token_source(TokenSource::None)
        .build()
        .await?;
    let router = MistralRsServerRouterBuilder::new().with_mistralrs(engine).build().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    // As in Cocoon: a streamed token does not wait for the acknowledgement of the last.
    let listener = axum::serve::ListenerExt::tap_io(listener, |connection| {
        let _ = connection.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}
