//! NVIDIA's reference manifests (RIM): golden measurements of a driver or a VBIOS as a SWID tag (ISO/IEC 19770-2, TCG RIM binding
//! for SWID tags) with an enveloped XML signature (W3C XMLDSig, ECDSA P-384 with SHA-384).

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::UnixTime;
use roxmltree::Node;

use super::xml;
use crate::outcome::{CheckOutcome, Record};
use crate::policy::Policy;
use crate::roots;
use crate::x509::{Cert, Window};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const RIM: &str = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const DIGEST_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const C14N: [&str; 2] = ["http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"];
/// Leaf, two intermediates, root.
const CHAIN: usize = 4;
/// Most alternatives of one measurement.
const MAX_ALTERNATIVES: usize = 32;

/// What a manifest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Driver,
    Vbios,
}

/// A manifest that was authenticated.
#[derive(Clone, Debug)]
pub(super) struct Rim {
    pub(super) kind: Kind,
    /// Such as `GH100`.
    pub(super) product: String,
    pub(super) version: String,
    /// Golden values by index, with their alternatives. Only those that are active.
    pub(super) golden: BTreeMap<u8, Vec<Vec<u8>>>,
    /// Leaf first, root last.
    pub(super) certificates: Vec<Cert>,
    pub(super) window: Window,
    pub(super) development: bool,
}

/// An error names the check that failed.
pub(super) type Failure = (&'static str, CheckOutcome, String);

/// Reads and authenticates a manifest.
pub(super) fn authenticate(bytes: &[u8], policy: &Policy, at: UnixTime) -> Result<Rim, Failure> {
    let malformed = |detail: String| ("rim.format", CheckOutcome::Malformed, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the manifest is no text in UTF-8".into()))?;
    let document =
        xml::parse(text).map_err(|error| malformed(format!("the manifest is no XML that is taken: {error}")))?;
    let root = document.root_element();
    if !root.has_tag_name((SWID, "SoftwareIdentity")) {
        return Err(malformed("the manifest is no SWID tag".into()));
    }
    let signature = only(root, DSIG, "Signature").map_err(malformed)?;
    let (certificates, window, development) = chain(signature, policy, at)?;
    let invalid = |id: &'static str| move |detail: String| (id, CheckOutcome::Invalid, detail);
    signed(root, signature, &certificates).map_err(invalid("rim.signature"))?;
    let mut rim = read(root).map_err(malformed)?;
    (rim.certificates, rim.window, rim.development) = (certificates, window, development);
    Ok(rim)
}

/// Product and version, by the manifest's own word.
pub(super) fn subject(bytes: &[u8]) -> Result<(String, String), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the manifest is no text in UTF-8")?;
    let rim = read(xml::parse(text)?.root_element())?;
    Ok((rim.product, rim.version))
}

/// The certificates that a manifest's signature carries, by its own word.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<Cert>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the manifest is no text in UTF-8")?;
    let document = xml::parse(text)?;
    let signature = only(document.root_element(), DSIG, "Signature")?;
    carried(signature)
}

fn carried(signature: Node<'_, '_>) -> Result<Vec<Cert>, String> {
    let data = only(only(signature, DSIG, "KeyInfo")?, DSIG, "X509Data")?;
    let nodes = data.children().filter(|child| child.has_tag_name((DSIG, "X509Certificate"))).take(CHAIN + 1);
    nodes.map(|node| Cert::from_der(base64(node)?).ok_or_else(|| "an X509Certificate is none".to_string())).collect()
}

/// The one child element of a name.
fn only<'a, 'i>(parent: Node<'a, 'i>, namespace: &'static str, name: &'static str) -> Result<Node<'a, 'i>, String> {
    let mut found = parent.children().filter(|child| child.has_tag_name((namespace, name)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("{:?} lacks {name}", parent.tag_name().name())),
        (Some(_), Some(_)) => Err(format!("{:?} has several {name}", parent.tag_name().name())),
    }
}

fn base64(node: Node<'_, '_>) -> Result<Vec<u8>, String> {
    let text: String = node.children().filter_map(|child| child.text()).collect();
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|_| format!("{} is not base64", node.tag_name().name()))
}

/// The certificates that the signature carries, leaf first, up to a root that is trusted.
fn chain(signature: Node<'_, '_>, policy: &Policy, at: UnixTime) -> Result<(Vec<Cert>, Window, bool), Failure> {
    let malformed = |detail: String| ("rim.format", CheckOutcome::Malformed, detail);
    let invalid = |detail: String| ("rim.certificates", CheckOutcome::Invalid, detail);
    let certificates = carried(signature).map_err(malformed)?;
    if certificates.len() != CHAIN {
        return Err(invalid(format!("{CHAIN} certificates are expected, {} are there", certificates.len())));
    }
    let development = roots::trusted_nvidia(&certificates[CHAIN - 1], roots::NVIDIA_RIM, policy).ok_or_else(|| {
        (
            "rim.root",
            CheckOutcome::Invalid,
            "the manifest's root is neither NVIDIA's nor one that the policy names".into(),
        )
    })?;
    let window = super::chain::certificates("manifest", &certificates, at).map_err(invalid)?;
    Ok((certificates, window, development))
}

/// The leaf signed SignedInfo, and that covers the whole document but the signature itself.
fn signed(root: Node<'_, '_>, signature: Node<'_, '_>, certificates: &[Cert]) -> Result<(), String> {
    let info = only(signature, DSIG, "SignedInfo")?;
    // Errors quote it, and it may be as long as the document.
    let algorithm =
        |node: Node<'_, '_>| node.attribute("Algorithm").unwrap_or_default().chars().take(80).collect::<String>();
    let expect = |what: &str, found: String, accepted: &[&str]| {
        if accepted.contains(&found.as_str()) {
            Ok(())
        } else {
            Err(format!("{what} {found:?} is not one that is taken"))
        }
    };
    expect("canonicalization", algorithm(only(info, DSIG, "CanonicalizationMethod")?), &C14N)?;
    expect("signature algorithm", algorithm(only(info, DSIG, "SignatureMethod")?), &[ECDSA_SHA384])?;
    let reference = only(info, DSIG, "Reference")?;
    if reference.attribute("URI") != Some("") {
        return Err("the signature is not over the whole document".into());
    }
    let transforms = only(reference, DSIG, "Transforms")?;
    let transforms: Vec<_> = transforms.children().filter(Node::is_element).map(algorithm).collect();
    match &transforms[..] {
        [first, second] if first == ENVELOPED => expect("transform", second.clone(), &C14N)?,
        _ => return Err(format!("the transforms {transforms:?} are not those that are taken")),
    }
    expect("digest", algorithm(only(reference, DSIG, "DigestMethod")?), &[DIGEST_SHA384])?;

    let stated = base64(only(reference, DSIG, "DigestValue")?)?;
    if digest(&SHA384, &xml::canonical(root, Some(signature))).as_ref() != stated {
        return Err("the document was changed after it was signed".into());
    }
    let value = base64(only(signature, DSIG, "SignatureValue")?)?;
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, certificates[0].key());
    key.verify(&xml::canonical(info, None), &value).map_err(|_| "its signer's key did not sign it".to_string())
}

fn read(root: Node<'_, '_>) -> Result<Rim, String> {
    let meta = only(root, SWID, "Meta")?;
    let text = |node: Node<'_, '_>, name: &str| {
        let value = node.attribute(name).ok_or_else(|| format!("{:?} lacks {name}", node.tag_name().name()))?;
        if value.len() > 64 || !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(format!("{name} is no short text"));
        }
        Ok(value.to_owned())
    };
    let version = text(meta, "colloquialVersion")?;
    let model = meta.attribute((RIM, "PlatformModel")).unwrap_or_default();
    // VBIOS versions are five bytes in hex, drivers' are decimal.
    let vbios =
        version.len() == 14 && version.split('.').all(|part| part.len() == 2) && version.split('.').count() == 5;
    let product = text(meta, "product")?;
    if model != product {
        return Err(format!("the manifest is for product {product:?} and for model {model:?}"));
    }
    let mut golden = BTreeMap::new();
    let payload = only(root, SWID, "Payload")?;
    for resource in payload.children().filter(Node::is_element) {
        if !resource.has_tag_name((SWID, "Resource")) || resource.attribute("type") != Some("Measurement") {
            return Err("the payload has something else than measurements".into());
        }
        let number = |name: &str| -> Result<u8, String> {
            text(resource, name)?.parse().map_err(|_| format!("a measurement's {name} is no small number"))
        };
        let (index, alternatives, size) = (number("index")?, usize::from(number("alternatives")?), number("size")?);
        if index > 63 || alternatives == 0 || alternatives > MAX_ALTERNATIVES || size != 48 {
            return Err(format!("measurement {index} is not well formed"));
        }
        let hash = |n: usize| -> Result<Vec<u8>, String> {
            let value = resource.attribute((HASH, format!("Hash{n}").as_str()));
            let bytes =
                value.and_then(|value| hex::decode(value).ok()).filter(|bytes| bytes.len() == usize::from(size));
            bytes.ok_or_else(|| format!("measurement {index} lacks its value {n}"))
        };
        let values = (0..alternatives).map(hash).collect::<Result<Vec<_>, _>>()?;
        let active = match resource.attribute("active") {
            Some("True") => true,
            Some("False") => false,
            _ => return Err(format!("measurement {index} is neither active nor inactive")),
        };
        if golden.insert(index, active.then_some(values)).is_some() {
            return Err(format!("measurement {index} is there twice"));
        }
    }
    let golden: BTreeMap<_, _> = golden.into_iter().filter_map(|(index, values)| Some((index, values?))).collect();
    if golden.is_empty() {
        return Err("the manifest has no active measurement".into());
    }
    let kind = if vbios { Kind::Vbios } else { Kind::Driver };
    let window = Window { from: UnixTime(0), to: UnixTime(0) };
    Ok(Rim { kind, product, version, golden, certificates: Vec::new(), window, development: false })
}

/// Writes what was found of a manifest on its own.
pub(super) fn report(record: &mut Record, rim: &Rim) {
    let kind = match rim.kind {
        Kind::Driver => "driver",
        Kind::Vbios => "VBIOS",
    };
    record.passed("rim.format", format!("{kind} {} for {}", rim.version, rim.product));
    record.passed("rim.certificates", "four certificates, each signed by the next, all current");
    record.passed("rim.root", if rim.development { "a root that the policy names" } else { "NVIDIA's root" });
    record
        .passed("rim.signature", format!("the whole manifest is signed; {} measurements are active", rim.golden.len()));
    record.measurements.push(("rim.version".into(), rim.version.clone()));
    record.measurements.push(("rim.product".into(), rim.product.clone()));
}
