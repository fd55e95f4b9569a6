//! The page: files that `web/` is built into, embedded. They hold no data, so they need no token; what they show they ask for with one.

use std::io::Read;

use barograph_core::hash::murmur3_x64_128;
use hyper::HeaderMap;
use hyper::header;

use crate::http::{self, Answer};
use crate::problem::{Outcome, Problem};

/// Scripts and styles come from here alone, nothing is asked elsewhere, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What there is without the page.
const PLACEHOLDER: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>barograph</title>\n\
    <h1>This barograph was built without its page</h1>\n\
    <p>In a checkout <code>make page</code> builds it (Node 20 or newer), and <code>make develop</code> embeds it.\n\
    <code>barograph top</code> shows the same in a terminal.</p></html>\n";

/// A file of the page, compressed.
struct Asset {
    path: &'static str,
    kind: &'static str,
    gzip: &'static [u8],
}

const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/page_assets.rs"));

/// A file of the page; the empty path is its beginning.
///
/// # Errors
/// 404.
pub(crate) fn answer(path: &str, headers: &HeaderMap) -> Outcome<Answer> {
    let wanted = if path.is_empty() { "index.html" } else { path };
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == wanted) else {
        if path.is_empty() {
            return Ok(document(Answer::bytes(200, "text/html; charset=utf-8", PLACEHOLDER)));
        }
        return Err(Problem::missing(format!("the page has no file {path:?}")));
    };
    let packed = http::text(headers, "accept-encoding").is_some_and(takes_gzip);
    let out = if packed {
        Answer::bytes(200, asset.kind, asset.gzip).with(header::CONTENT_ENCODING, "gzip")
    } else {
        let mut bytes = Vec::new();
        let read = flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut bytes);
        read.map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
        Answer::bytes(200, asset.kind, bytes)
    };
    let out = out.with(header::VARY, "accept-encoding");
    Ok(if wanted == "index.html" {
        let (high, low) = murmur3_x64_128(asset.gzip, u64::from(packed));
        document(out).tagged(&format!("\"{high:016x}{low:016x}\""), headers)
    } else {
        // Its name changes with its content.
        out.with(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
    })
}

fn document(answer: Answer) -> Answer {
    answer.with(header::CONTENT_SECURITY_POLICY, POLICY).with(header::CACHE_CONTROL, "no-cache")
}

/// Whether `Accept-Encoding` lets gzip through.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let (name, rest) = one.trim().split_once(';').unwrap_or((one.trim(), ""));
        let refused =
            rest.trim().strip_prefix("q=").is_some_and(|quality| quality.trim().parse::<f64>().is_ok_and(|quality| quality == 0.0));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        assert!(takes_gzip("gzip, deflate, br") && takes_gzip("br;q=1.0, GZIP;q=0.5") && takes_gzip("*"));
        assert!(!takes_gzip("") && !takes_gzip("br, deflate") && !takes_gzip("gzip;q=0") && !takes_gzip("identity"));
    }

    #[test]
    fn every_embedded_file_unpacks_and_the_beginning_is_always_there() {
        for asset in ASSETS {
            let mut bytes = Vec::new();
            assert!(flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut bytes).unwrap() > 0, "{}", asset.path);
        }
        assert_eq!(answer("", &HeaderMap::new()).unwrap().status, 200);
        assert_eq!(answer("assets/../Cargo.toml", &HeaderMap::new()).unwrap_err().status, 404);
    }
}
