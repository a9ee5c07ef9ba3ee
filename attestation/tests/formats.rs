//! The formats against `docs/vectors/evidence.json`, which an independent encoder made, and their strictness.

use cocoon_attestation::cbor::{self, Value};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, Endorsements, Error, EventLog, GpuEndorsements, SnpEndorsements,
    UnixTime, binding, model_root,
};
use serde_json::Value as Json;

fn vectors() -> Json {
    serde_json::from_str(include_str!("../../docs/vectors/evidence.json")).unwrap()
}

fn bytes(hex_text: &Json) -> Vec<u8> {
    hex::decode(hex_text.as_str().unwrap()).unwrap()
}

fn digest(hex_text: &Json) -> Digest {
    hex_text.as_str().unwrap().parse().unwrap()
}

fn list(items: &Json) -> Vec<Vec<u8>> {
    items.as_array().unwrap().iter().map(bytes).collect()
}

fn claims(fields: &Json) -> Claims {
    Claims {
        enclave_key: fields["enclave_key"].as_str().unwrap().parse().unwrap(),
        provider: fields["provider"].as_str().unwrap().parse().unwrap(),
        model_name: fields["model_name"].as_str().unwrap().into(),
        model_root: digest(&fields["model_root"]),
        config_digest: digest(&fields["config_digest"]),
        beacon: Beacon {
            seqno: fields["beacon"]["seqno"].as_u64().unwrap() as u32,
            root_hash: digest(&fields["beacon"]["root_hash"]),
            time: UnixTime(fields["beacon"]["time"].as_u64().unwrap()),
        },
        nonce_root: digest(&fields["nonce_root"]),
        gpu_digest: fields["gpu_digest"].as_str().map(|text| text.parse().unwrap()),
    }
}

#[test]
fn claims_and_binding_match_the_vectors() {
    for vector in vectors()["claims"].as_array().unwrap() {
        let claims = claims(&vector["fields"]);
        let encoded = bytes(&vector["cbor"]);
        assert_eq!(hex::encode(claims.to_cbor()), hex::encode(&encoded));
        assert_eq!(Claims::from_cbor(&encoded).unwrap(), claims);
        assert_eq!(binding::report_data(&encoded).to_vec(), bytes(&vector["report_data"]));
        assert_eq!(binding::gpu_nonce(&claims).to_vec(), bytes(&vector["gpu_nonce"]));
    }
    let gpu = &vectors()["gpu_digest"];
    assert_eq!(binding::gpu_digest(&list(&gpu["gpu"])), Some(digest(&gpu["digest"])));
    assert_eq!(binding::gpu_digest(&[] as &[&[u8]]), None);
}

#[test]
fn claims_with_one_field_wrong_are_refused() {
    let good = bytes(&vectors()["claims"][1]["cbor"]);
    let Value::Map(entries) = cbor::decode("test", &good).unwrap() else { panic!("a map") };
    let with = |key: u64, value: Option<Value>| {
        let mut entries: Vec<_> = entries.iter().filter(|(found, _)| *found != Value::from(key)).cloned().collect();
        entries.extend(value.map(|value| (Value::from(key), value)));
        Claims::from_cbor(&cbor::encode(&Value::Map(entries)))
    };
    assert!(with(8, None).is_ok(), "the GPU digest may be absent");
    for key in 0..8 {
        assert!(with(key, None).is_err(), "field {key} missing");
        assert!(with(key, Some(Value::Bool(true))).is_err(), "field {key} of another type");
    }
    assert!(with(0, Some(Value::from("cocoon/evidence/v2"))).unwrap_err().to_string().contains("profile"));
    assert!(with(1, Some(Value::Bytes(vec![0; 31]))).is_err(), "short key");
    assert!(with(8, Some(Value::Bytes(vec![0; 33]))).is_err(), "long GPU digest");
    assert!(with(3, Some(Value::from(""))).is_err(), "empty model name");
    assert!(with(3, Some(Value::from("x".repeat(257)))).is_err(), "long model name");
    assert!(with(3, Some(Value::from("a\u{1b}[2J"))).is_err(), "control characters reach terminals");
    assert!(with(9, Some(Value::from(1))).unwrap_err().to_string().contains("unknown field"));
}

fn bundle(vector: &Json) -> Bundle {
    let cpu = match (&vector["cpu"]["tdx"], &vector["cpu"]["snp"]) {
        (Json::String(_), _) => CpuEvidence::Tdx { quote: bytes(&vector["cpu"]["tdx"]) },
        _ => CpuEvidence::Snp { report: bytes(&vector["cpu"]["snp"]) },
    };
    let endorsements = &vector["endorsements"];
    let endorsements = if endorsements["tdx"].is_string() {
        Endorsements::Tdx { collateral: bytes(&endorsements["tdx"]) }
    } else if let snp @ Json::Object(_) = &endorsements["snp"] {
        Endorsements::Snp(SnpEndorsements {
            vek: bytes(&snp["vek"]),
            ca: list(&snp["ca"]),
            crl: Some(bytes(&snp["crl"])),
        })
    } else {
        Endorsements::None
    };
    let event_log = vector["event_log"].as_str().map(|log| EventLog::from_cbor(&hex::decode(log).unwrap()).unwrap());
    Bundle {
        claims: bytes(&vector["claims"]),
        cpu,
        gpu: list(&vector["gpu"]),
        event_log,
        endorsements,
        gpu_endorsements: Default::default(),
    }
}

#[test]
fn bundles_match_the_vectors_attached_and_detached() {
    for vector in vectors()["bundles"].as_array().unwrap() {
        let bundle = bundle(vector);
        let what = &vector["what"];
        assert_eq!(hex::encode(bundle.to_cbor()), vector["cbor"].as_str().unwrap(), "{what}");
        assert_eq!(Bundle::from_cbor(&bytes(&vector["cbor"])).unwrap(), bundle, "{what}");
        assert_eq!(bundle.evidence_id().to_string(), vector["evidence_id"].as_str().unwrap(), "{what}");
        let (detached, objects) = bundle.to_detached();
        assert_eq!(hex::encode(&detached), vector["detached"].as_str().unwrap(), "{what}");
        let find = |digest: &Digest| objects.iter().find(|(found, _)| found == digest).map(|(_, bytes)| bytes.clone());
        assert_eq!(Bundle::from_cbor_with(&detached, find).unwrap(), bundle, "{what}");
        let alone = Bundle::from_cbor(&detached);
        match bundle.endorsements {
            Endorsements::None => assert_eq!(alone.unwrap(), bundle),
            _ => assert!(matches!(alone, Err(Error::MissingEndorsement(_))), "{what}"),
        }
    }
}

#[test]
fn the_evidence_id_follows_the_evidence_and_not_the_endorsements() {
    let good = bundle(&vectors()["bundles"][0]);
    let id = good.evidence_id();
    assert_eq!(Bundle { endorsements: Endorsements::None, ..good.clone() }.evidence_id(), id);
    let mut other = good.clone();
    other.claims.push(0);
    assert_ne!(other.evidence_id(), id, "claims");
    other = good.clone();
    other.gpu.swap(0, 1);
    assert_ne!(other.evidence_id(), id, "order of GPU reports");
    other = good.clone();
    let moved = other.claims.pop().unwrap();
    let CpuEvidence::Tdx { quote } = &mut other.cpu else { panic!("TDX") };
    quote.insert(0, moved);
    assert_ne!(other.evidence_id(), id, "a byte moved from one part to the next");
}

#[test]
fn bundles_with_one_thing_wrong_are_refused() {
    let good = bytes(&vectors()["bundles"][0]["cbor"]);
    let Value::Map(entries) = cbor::decode("test", &good).unwrap() else { panic!("a map") };
    let with = |key: Value, value: Option<Value>| {
        let mut entries: Vec<_> = entries.iter().filter(|(found, _)| *found != key).cloned().collect();
        entries.extend(value.map(|value| (key, value)));
        Bundle::from_cbor(&cbor::encode(&Value::Map(entries)))
    };
    let record = |kind: &str, indicator: u64| Value::Array(vec![kind.into(), Value::Bytes(vec![1]), indicator.into()]);
    assert!(with(Value::from(2), None).is_ok(), "the event log may be absent");
    assert!(with(Value::from("__cmwc_t"), None).is_err(), "no collection type");
    assert!(with(Value::from("__cmwc_t"), Some(Value::from("urn:other"))).is_err(), "another collection type");
    assert!(with(Value::from(0), None).is_err(), "no claims");
    assert!(with(Value::from(1), None).is_err(), "no CPU evidence");
    assert!(with(Value::from(1), Some(record("application/vnd.cocoon.claims+cbor", 4))).is_err(), "another media type");
    assert!(with(Value::from(1), Some(record("application/vnd.cocoon.tdx-quote", 2))).is_err(), "another indicator");
    assert!(with(Value::from(16), None).is_err(), "a gap before GPU 1");
    assert!(with(Value::from(3), None).is_err(), "endorsements without an index");
    assert!(with(Value::from(4), Some(Value::Map(vec![]))).is_err(), "an empty store");
    assert!(with(Value::from(5), Some(Value::from(0))).is_err(), "an unknown label");

    let mut swapped = entries.clone();
    let Value::Map(store) = &mut swapped.iter_mut().find(|(key, _)| *key == Value::from(4)).unwrap().1 else {
        panic!("a store")
    };
    let Value::Array(record) = &mut store[0].1 else { panic!("a record") };
    record[1] = Value::Bytes(b"another collateral".to_vec());
    let error = Bundle::from_cbor(&cbor::encode(&Value::Map(swapped))).unwrap_err().to_string();
    assert!(error.contains("has SHA-256"), "{error}");
}

#[test]
fn event_logs_replay_to_the_vectors_registers() {
    let vector = &vectors()["event_log"];
    let log = EventLog::from_cbor(&bytes(&vector["cbor"])).unwrap();
    assert_eq!(log.to_cbor(), bytes(&vector["cbor"]));
    let registers = log.replay().unwrap().map(|register| register.0.to_vec());
    assert_eq!(registers.to_vec(), list(&vector["registers"]));

    let mut reordered = log.clone();
    reordered.0.swap(0, 2);
    assert_ne!(reordered.replay().unwrap(), log.replay().unwrap(), "order counts within a register");
    let mut outside = log;
    outside.0[0].register = 4;
    assert!(matches!(outside.replay(), Err(Error::Register(4))));
    assert!(matches!(EventLog::from_cbor(&outside.to_cbor()), Err(Error::Register(4))));
}

#[test]
fn the_model_root_matches_the_vector() {
    let vector = &vectors()["model_root"];
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in vector["files"].as_object().unwrap() {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.as_str().unwrap()).unwrap();
    }
    assert_eq!(model_root(folder.path()).unwrap().root, digest(&vector["root"]));
}

#[test]
fn gpu_endorsements_travel_with_or_without_the_cpus() {
    let gpu_endorsements = GpuEndorsements {
        chains: vec![b"chain 0".to_vec(), b"chain 1".to_vec()],
        manifests: vec![b"driver".to_vec(), b"vbios".to_vec()],
        ocsp: vec![b"answer".to_vec()],
    };
    for endorsements in [Endorsements::None, Endorsements::Tdx { collateral: b"{}".to_vec() }] {
        let bundle = Bundle {
            claims: b"claims".to_vec(),
            cpu: CpuEvidence::Tdx { quote: b"quote".to_vec() },
            gpu: vec![b"report 0".to_vec(), b"report 1".to_vec()],
            event_log: None,
            endorsements,
            gpu_endorsements: gpu_endorsements.clone(),
        };
        let bytes = bundle.to_cbor();
        assert_eq!(Bundle::from_cbor(&bytes).unwrap(), bundle);
        let (detached, objects) = bundle.to_detached();
        let find = |digest: &Digest| objects.iter().find(|(known, _)| known == digest).map(|(_, bytes)| bytes.clone());
        assert_eq!(Bundle::from_cbor_with(&detached, find).unwrap(), bundle);
        assert_eq!(
            Bundle { gpu_endorsements: GpuEndorsements::default(), ..bundle.clone() }.evidence_id(),
            bundle.evidence_id()
        );
    }
}
