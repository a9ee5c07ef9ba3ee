//! Every obligation of this verifier, in the order in which it is met, with the check that shows it and the place in the code.
//! Paths are below `verifier/src`. A check that fails ends the authentication of that piece of evidence; appraisal makes all of
//! its checks. What the policy gives no reference for is listed in the result as unchecked, under the same name.
//! `tests/obligations.rs` fails when a check is missing here, or stands here and is not made.
//!
//! # TDX quotes
//!
//! Sources: Intel TDX DCAP Quoting Library API (appendix 3), Intel PCS API v4, Intel SGX PCK Certificate and CRL Profile, Intel TDX
//! Module 1.5 Base Architecture and ABI Specifications, RFC 5280.
//!
//! ## Authentication
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `tdx.format` | version 4 or 5, TEE type TDX, key type ECDSA P-256, Intel's QE vendor id, body type 2, 3 or 4, every length adds up, only zeros follow | `tdx/parse.rs`, `Quote::parse` |
//! | `tdx.collateral-format` | `QuoteCollateralV3`, at most 4 MiB, chains of at most five certificates | `tdx/collateral.rs`, `Collateral::from_json` |
//! | `tdx.signature-data` | certification data of type 6, with PCK chain of type 5 or none; no byte left over | `tdx/parse.rs`, `Quote::signature_data` |
//! | `tdx.signature` | the attestation key signed header and body | `tdx/mod.rs`, `authentic` |
//! | `tdx.certificates` | the root signed its list; signers and PCK issuer are issued by the root, the PCK certificate by its issuer; all current, used as what they are for, without critical extensions that are not understood; none revoked; each list current and complete; nothing else in the chain | `tdx/authenticate.rs`, `Chains::verify` |
//! | `tdx.root` | otherwise: the evidence rests on a root that nobody named | `tdx/mod.rs`, `authenticate_under_any` |
//! | `tdx.tcb-info` | signed by Intel's signer, current, version 3 or later, for TDX, for this FMSPC | `tdx/authenticate.rs`, `tcb_info` |
//! | `tdx.qe-identity` | signed, current, for TD_QE; MRSIGNER, product, MISCSELECT, attributes of the quoting enclave are its; its version reaches a level | `tdx/authenticate.rs`, `qe_identity`, `quoting_enclave` |
//! | `tdx.qe-report` | the PCK signed the quoting enclave's report, and that binds the attestation key and the authentication data | `tdx/authenticate.rs`, `qe_report` |
//! | `tdx.pce-id` | PCEID of PCK certificate and TCB info agree | `tdx/authenticate.rs`, `agreement` |
//! | `tdx.tcb-type` | tcbType is 0, the only one whose comparison is known | the same |
//! | `tdx.signer-subject` | documents are signed by "SGX TCB Signing" | the same |
//! | `tdx.pck-subject` | the PCK certificate is called one, and so is its issuer | the same |
//! | `tdx.pck-tcb` | the PCK certificate's two statements of its components agree | the same |
//! | `tdx.module` | MRSIGNERSEAM and SEAM attributes are what TCB info names for this module | `tdx/tcb.rs`, `module` |
//! | `tdx.tcb-level` | platform and module reach a level, before and after an update of the module, and none is revoked | `tdx/tcb.rs`, `evaluate` |
//! | `tdx.header-svn` | versions that the header states do not exceed what is certified | `tdx/appraise.rs`, `header` |
//!
//! ## Appraisal
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `tdx.tcb-status` | the status, converged over platform, module and quoting enclave, is one that the policy takes | `tdx/appraise.rs`, `tcb` |
//! | `tdx.advisories` | each advisory that applies is named by the policy | the same |
//! | `tdx.tcb-evaluation`, `tdx.qe-svn`, `tdx.pce-svn`, `tdx.tee-tcb-svn` | not below the policy's minimum | the same |
//! | `tdx.collateral-age` | the oldest part of the collateral is not older than the policy takes | `tdx/appraise.rs`, `age` |
//! | `tdx.debug` | no DEBUG or profiling | `tdx/appraise.rs`, `attributes` |
//! | `tdx.migration` | not migratable | the same |
//! | `tdx.sept-ve-disable` | SEPT_VE_DISABLE is set | the same |
//! | `tdx.service-td` | no service TD is bound | the same |
//! | `tdx.attributes` | no attribute that is not known | the same |
//! | `tdx.smt`, `tdx.cached-keys`, `tdx.dynamic-platform` | what the PCK certificate says of the platform is what the policy takes | `tdx/appraise.rs`, `flags` |
//! | `tdx.mrtd`, `tdx.rtmr0`, `tdx.rtmr1`, `tdx.rtmr2`, `tdx.rtmr3`, `tdx.mrseam`, `tdx.td-attributes`, `tdx.xfam`, `tdx.mrconfigid`, `tdx.mrowner`, `tdx.mrownerconfig`, `tdx.report-data`, `tdx.fmspc`, `tdx.piid` | among the policy's references | `tdx/appraise.rs`, `references` |
//! | `tdx.event-log` | the log replays to the registers that it names | `tdx/events.rs`, `appraise` |
//! | `tdx.event-rules` | every event of a register that a rule names meets a rule, in their order | `tdx/events.rs`, `obey` |
//!
//! # SEV-SNP reports
//!
//! Sources: SEV Secure Nested Paging Firmware ABI Specification (56860), VCEK Certificate and KDS Interface Specification (57230), RFC 4055.
//!
//! ## Authentication
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `snp.format` | 1184 bytes, version 2 to 5, reserved bytes zero | `snp/parse.rs`, `Report::parse` |
//! | `snp.certificate-format` | certificates are certificates, DER or PEM | `snp/authenticate.rs`, `load` |
//! | `snp.chain` | the ARK signed itself and the ASK, the ASK the report key's certificate, by RSASSA-PSS with SHA-384 | `snp/authenticate.rs`, `chain` |
//! | `snp.root` | the ARK's key is AMD's, or one that the policy names | the same |
//! | `snp.validity` | all three are current | the same |
//! | `snp.key-usage` | CAs are CAs that sign certificates, the report key is none | the same |
//! | `snp.revocation` | the ARK signed the list, it is current, the ASK is not on it | `snp/authenticate.rs`, `revocation` |
//! | `snp.certificate-tcb` | the certificate states a TCB | `snp/authenticate.rs`, `Platform::authenticate` |
//! | `snp.signature` | ECDSA P-384 with SHA-384 over the raw bytes, by the certified key | `snp/authenticate.rs`, `key` |
//! | `snp.signing-key` | report and certificate agree on VCEK or VLEK | the same |
//! | `snp.product` | certificate, root and processor are of one product line | the same |
//! | `snp.chip-id` | report and certificate name the same chip | `snp/authenticate.rs`, `chip` |
//!
//! ## Appraisal
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `snp.debug` | the guest policy forbids debugging | `snp/appraise.rs`, `appraise` |
//! | `snp.migration` | no migration agent, in the policy and in the report | the same |
//! | `snp.policy` | bit 17 is one, and no bit is set that is not known | the same |
//! | `snp.guest-policy` | further bits are as the policy has them | the same |
//! | `snp.smt` | hyper-threading is permitted only if the policy takes it | the same |
//! | `snp.vmpl` | asked for at a privilege level that the policy takes | the same |
//! | `snp.provisional-firmware` | what runs is committed | the same |
//! | `snp.tcb` | reported and certified TCB are equal | the same |
//! | `snp.vlek`, `snp.masked-chip-id` | signed by a chip's own key, and the chip is named | the same |
//! | `snp.min-tcb`, `snp.min-launch-tcb` | not below the policy's, each component for itself | `snp/appraise.rs`, `least_tcb` |
//! | `snp.abi`, `snp.guest-svn` | not below the policy's minimum | `snp/appraise.rs`, `appraise` |
//! | `snp.firmware` | running and committed version are not below the policy's | `snp/appraise.rs`, `firmware` |
//! | `snp.platform-info` | bits are as the policy has them | `snp/appraise.rs`, `platform_info` |
//! | `snp.mitigations` | those that the policy demands are there, at launch and now | `snp/appraise.rs`, `mitigations` |
//! | `snp.id-key`, `snp.author-key`, `snp.single-socket` | if the policy demands them | `snp/appraise.rs`, `appraise` |
//! | `snp.id-block` | a trusted key signed the identity block, or a trusted author vouches for the one that did | `snp/appraise.rs`, `id_block` |
//! | `snp.measurement`, `snp.host-data`, `snp.report-data`, `snp.id-key-digest`, `snp.author-key-digest`, `snp.family-id`, `snp.image-id`, `snp.report-id`, `snp.report-id-ma`, `snp.allowed-chip` | among the policy's references | `snp/appraise.rs`, `appraise` |
//! | `snp.event-log` | a bundle with SNP evidence has no event log: there are no registers to replay it into | `bundle.rs` |
//!
//! # NVIDIA GPUs
//!
//! Sources: DMTF DSP0274 (SPDM 1.1), TCG DICE and RIM specifications, ISO/IEC 19770-2, W3C XMLDSig and Canonical XML 1.1, RFC 6960.
//!
//! ## Authentication
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `gpu.format` | SPDM 1.1 request for all measurements, with its response; every length adds up; each block and field once | `gpu/spdm.rs`, `GpuReport::parse` |
//! | `gpu.ocsp-format` | OCSP responses are successful basic responses, at most 16 KiB each | `gpu/ocsp.rs`, `Response::parse` |
//! | `gpu.certificate-format` | the chain is PEM of at most five certificates | `gpu/chain.rs`, `Chain::authenticate` |
//! | `gpu.root` | the root's key is NVIDIA's, or one that the policy names | the same |
//! | `gpu.certificates` | five, each signed by the next, ECDSA P-384 with SHA-384, all current, used as what they are for | `gpu/chain.rs`, `certificates` |
//! | `gpu.architecture` | Hopper or Blackwell, the same in leaf and model; no switch, by certificate and by report | `gpu/chain.rs`, `architecture` |
//! | `gpu.fwid` | report and certificate name the same firmware | `gpu/chain.rs`, `authenticate` |
//! | `gpu.nonce` | the report answers the nonce | the same |
//! | `gpu.signature` | the certified key signed request and response | the same |
//! | `gpu.revocation` | each certificate that NVIDIA's service knows is good, by an answer that its issuer or the issuer's delegate signed and that holds now | `gpu/ocsp.rs`, `check` |
//! | `gpu.distinct` | several reports are of several GPUs | `gpu/mod.rs`, `run` |
//!
//! ## Appraisal
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `gpu.mode` | a known mode that the policy takes | `gpu/appraise.rs`, `mode_and_versions` |
//! | `gpu.switches` | never checked here: listed where the mode rests on NVSwitches | the same |
//! | `gpu.driver-version`, `gpu.vbios-version` | among those that the policy names | the same |
//! | `gpu.driver-rim`, `gpu.vbios-rim` | a manifest for this architecture and version | `gpu/appraise.rs`, `golden` |
//! | `gpu.driver-rim-revocation`, `gpu.vbios-rim-revocation` | its signers are not revoked, as above | `gpu/ocsp.rs`, `check` |
//! | `gpu.measurements` | every active golden measurement of both manifests is the GPU's; no index in both | `gpu/appraise.rs`, `golden` |
//! | `gpu.all-measurements` | unchecked if one of the manifests is missing | the same |
//!
//! ## Manifests
//!
//! With a GPU's report the names begin with `gpu.rim.` instead of `rim.`.
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `rim.format` | a SWID tag of one signature; no DTD, bounded nesting, attributes and namespaces; well-formed measurements, each index once | `gpu/xml.rs`, `gpu/rim.rs`, `read` |
//! | `rim.root`, `rim.certificates` | four certificates, as for a GPU, up to NVIDIA's root for manifests | `gpu/rim.rs`, `chain` |
//! | `rim.signature` | XMLDSig over the whole document with exactly the algorithms that NVIDIA uses | `gpu/rim.rs`, `signed` |
//! | `rim.ocsp-format`, `rim.revocation` | as for a GPU | `gpu/ocsp.rs` |
//!
//! # Bundles
//!
//! | check | obligation | where |
//! |---|---|---|
//! | `bundle.format`, `claims.format` | deterministic CBOR as `docs/schemas` has it | `bundle.rs` |
//! | `bundle.endorsements` | endorsements of the CPU's kind are stapled | the same |
//! | `binding.report-data` | the CPU signed these claims | `binding.rs`, `claims` |
//! | `binding.gpu-digest` | the claims name this GPU evidence, or none where there is none; the nonce is made from the claims (`gpu.nonce`) | `binding.rs`, `gpu` |
//! | `gpu.appraisal` | each GPU report came with its certificates | the same |
//! | `reference.measurement`, `reference.model-root` | among the reference values | `binding.rs`, `references` |
//! | `reference.config-digest`, `reference.provider` | among the policy's | the same |
//! | `claims.beacon` | never checked here: whether the beacon's block exists is for the chain to say | `binding.rs`, `freshness` |
//! | `claims.freshness` | the beacon is not of the future and not older than the policy takes | `binding.rs`, `freshness` |
