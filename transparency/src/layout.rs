//! Names of a log's files, the same on disk and over HTTP.
//!
//! `checkpoint`, `tile/<level>/<index>[.p/<width>]` and `tile/entries/<index>[.p/<width>]` are those of C2SP tlog-tiles;
//! `part/<two digits>/<SHA-256>` holds what leaves refer to.

use cocoon_attestation::Digest;
use tlog_tiles::Tile;

/// Hashes that a full tile holds, and entries of a full bundle of entries.
pub const WIDTH: u64 = 256;
/// Height of a tile.
pub const HEIGHT: u8 = 8;
/// Levels of tiles that a tree of 2^64 leaves has.
pub const LEVELS: u8 = 8;

/// Name of the newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// Name of a tile of hashes: `width` is 1 to 256.
pub fn hashes(level: u8, index: u64, width: u64) -> String {
    c2sp(Tile::new(HEIGHT, level, index, width.clamp(1, WIDTH) as u32, false))
}

/// Name of a bundle of entries: `width` is 1 to 256.
pub fn entries(index: u64, width: u64) -> String {
    c2sp(Tile::new(HEIGHT, 0, index, width.clamp(1, WIDTH) as u32, true))
}

/// Name of a part that stands beside the tree.
pub fn part(digest: &Digest) -> String {
    let name = digest.to_string();
    format!("part/{}/{name}", &name[..2])
}

/// The crate names the height too, and says "data".
fn c2sp(tile: Tile) -> String {
    let path = tile.path();
    let rest = path.strip_prefix("tile/8/").unwrap_or(&path);
    match rest.strip_prefix("data/") {
        Some(index) => format!("tile/entries/{index}"),
        None => format!("tile/{rest}"),
    }
}

/// Whether a text is the name of a file that a log can have. Nothing else is looked up, so no name leads out of the folder.
pub fn is_name(name: &str) -> bool {
    if name == CHECKPOINT {
        return true;
    }
    if let Some(rest) = name.strip_prefix("part/") {
        return rest
            .get(3..)
            .and_then(|digest| digest.parse::<Digest>().ok())
            .is_some_and(|digest| part(&digest) == name);
    }
    let Some(rest) = name.strip_prefix("tile/") else { return false };
    // The crate panics on levels beyond 63 and on empty tiles.
    let (level, index) = rest.split_once('/').unwrap_or((rest, ""));
    let inner = match level {
        "entries" => format!("tile/8/data/{index}"),
        "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" => format!("tile/8/{level}/{index}"),
        _ => return false,
    };
    !inner.ends_with(".p/0") && Tile::from_path(&inner).is_ok_and(|tile| c2sp(tile) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_c2sp_and_no_others() {
        assert_eq!(hashes(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(hashes(1, 0, 17), "tile/1/000.p/17");
        assert_eq!(entries(3, 1), "tile/entries/003.p/1");
        let digest = Digest([0xab; 32]);
        for name in ["checkpoint", "tile/0/x001/x234/067", "tile/entries/003.p/1", "tile/7/000", &part(&digest)] {
            assert!(is_name(name), "{name}");
        }
        let text = digest.to_string();
        for name in [
            "",
            "tile",
            "tile/",
            "tile/8/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/../../owner",
            "tile/data/000",
            "tile/0/0000",
            "tile/00/000",
            "part/../owner",
            "part/ab",
            &format!("part/ba/{text}"),
            &format!("part/ab/{}", text.to_uppercase()),
            &format!("part/ab/{text}/"),
            "journal-0",
            "/etc/passwd",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
