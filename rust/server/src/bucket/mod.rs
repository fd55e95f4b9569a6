//! A bucket: objects that all sidecars of a fleet reach, in S3 or what speaks like it, or in a shared folder. Sidecars that see put parcels
//! there, the one that judges reads them; neither has to reach the other.
//!
//! | object | written by | |
//! |---|---|---|
//! | `aggregator` | the aggregator, if absent | its identity: a bucket has one reader |
//! | `models/MODEL/settings.json` | the aggregator | what is stated about a model, and which reference it has |
//! | `models/MODEL/reference-ID` | the aggregator | that reference |
//! | `parcels/MODEL/STREAM/NUMBER.parquet` | a sidecar, if absent | a [`parcel`] |

mod client;
mod credentials;
pub mod edge;
pub mod parcel;
pub mod reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use barograph_core::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::{BackoffConfig, GetOptions, ObjectStore, PutMode, PutOptions, RetryConfig};

use crate::config::is_name;
use crate::streams::Numbered;

/// Of an object that is read whole.
const MOST: u64 = 64 << 20;
/// Until a request that failed is given up: the next turn tries again.
const GIVE_UP: Duration = Duration::from_secs(20);
/// What one is addressed by.
const FORMS: &str = "\"s3://bucket/prefix\" or \"file:///shared/folder\"";

/// A bucket, or a part of one.
#[derive(Debug)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    /// As it was stated.
    pub address: String,
    /// Where it is, if it is a folder.
    folder: Option<PathBuf>,
}

/// What came of looking for an object.
#[derive(Debug)]
pub(crate) enum Got {
    /// There is none.
    Missing,
    /// It is the one that is known.
    Same,
    /// It, and its tag.
    Bytes(Bytes, Option<String>),
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: Path,
    /// Its bytes.
    pub(crate) size: u64,
    /// What changes when it does.
    pub(crate) tag: Option<String>,
}

/// What an address names.
enum Place {
    S3(String, Path),
    Folder(PathBuf, Path),
}

fn place(key: &str, address: &str) -> Result<Place> {
    if address.contains('@') {
        return Err(Error::invalid(format!("`fleet.{key}` must be {FORMS}, and says who comes in"))
            .hint("keys come from the environment or the files of AWS's tools"));
    }
    let wrong = |why: &str| Error::invalid(format!("`fleet.{key}` must be {FORMS}, got {address:?}{why}"));
    if let Some(path) = address.strip_prefix("file://") {
        let folder = PathBuf::from(path.trim_end_matches('/'));
        if !folder.is_absolute() {
            return Err(wrong(": a folder is named from the root on"));
        }
        let root = Path::from_absolute_path(&folder).map_err(|_| wrong(": no such path can be"))?;
        return Ok(Place::Folder(folder, root));
    }
    let rest = address.strip_prefix("s3://").ok_or_else(|| wrong(""))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fine = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, b'-' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fine) {
        return Err(wrong(": a bucket has 3 to 63 small letters, digits, - and ."));
    }
    let root = Path::parse(prefix.trim_end_matches('/')).map_err(|_| wrong(": no such prefix can be"))?;
    Ok(Place::S3(bucket.to_owned(), root))
}

/// Whether an address is a bucket's.
pub fn is_address(address: &str) -> bool {
    ["s3://", "file://"].iter().any(|scheme| address.starts_with(scheme))
}

/// Refuses an address that cannot be.
///
/// # Errors
/// `InvalidArgument` naming the key.
pub fn check(key: &str, address: &str) -> Result<()> {
    place(key, address).map(drop)
}

impl Bucket {
    /// The bucket of an address; it is not looked at yet.
    ///
    /// # Errors
    /// `InvalidArgument` for an address, or for keys in environment and files, that cannot be.
    pub fn open(key: &str, address: &str, agent: ureq::Agent) -> Result<Self> {
        let (objects, root, folder): (Arc<dyn ObjectStore>, Path, Option<PathBuf>) = match place(key, address)? {
            // What was put has to outlive the power of a machine: it leaves the outbox then.
            Place::Folder(folder, root) => (Arc::new(LocalFileSystem::new().with_fsync(true)), root, Some(folder)),
            Place::S3(bucket, root) => {
                let backoff = BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(5), base: 2.0 };
                let builder = credentials::builder()?
                    .with_bucket_name(bucket)
                    .with_retry(RetryConfig { backoff, max_retries: 3, retry_timeout: GIVE_UP })
                    .with_http_connector(client::Connector(agent));
                let built = builder.build().map_err(|error| Error::invalid(format!("`fleet.{key}` {address}: {}", words(&error))))?;
                (Arc::new(built), root, None)
            }
        };
        Ok(Self { objects, root, address: address.to_owned(), folder })
    }

    /// The name of an object.
    pub(crate) fn name<const PARTS: usize>(&self, parts: [&str; PARTS]) -> Path {
        let mut path = self.root.clone();
        for part in parts {
            path = path.join(part);
        }
        path
    }

    /// The name of a parcel.
    pub(crate) fn parcel(&self, model: &str, place: &Numbered) -> Path {
        self.name(["parcels", model, &place.stream, &format!("{:020}.parquet", place.number)])
    }

    /// The model and place that a parcel's name says.
    pub(crate) fn parcel_of(&self, name: &Path) -> Option<(String, Numbered)> {
        let parts: Vec<PathPart<'_>> = name.prefix_match(&self.root)?.collect();
        let [first, model, stream, number] = parts.as_slice() else { return None };
        let number = number.as_ref().strip_suffix(".parquet").filter(|number| number.len() == 20)?;
        let number = number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse().ok())??;
        let fine = first.as_ref() == "parcels" && is_name(model.as_ref()) && is_stream(stream.as_ref());
        fine.then(|| (model.as_ref().to_owned(), Numbered { stream: stream.as_ref().into(), number }))
    }

    /// A name without what all have in common.
    pub(crate) fn shown(&self, name: &Path) -> String {
        let rest = name.prefix_match(&self.root).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        rest.unwrap_or_else(|| name.to_string())
    }

    /// Whether its folder is not there, as one that is not mounted.
    pub(crate) fn is_gone(&self) -> bool {
        self.folder.as_ref().is_some_and(|folder| !folder.is_dir())
    }

    /// Whether looking costs nothing, as it does in a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.folder.is_some()
    }

    fn failed(&self, error: &object_store::Error) -> String {
        format!("{}: {}", self.address, words(error))
    }

    /// An object, unless it is the one of this tag.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub(crate) async fn get(&self, name: &Path, tag: Option<&str>) -> std::result::Result<Got, String> {
        let options = GetOptions { if_none_match: tag.map(str::to_owned), ..GetOptions::default() };
        let found = match self.objects.get_opts(name, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Got::Missing),
            Err(object_store::Error::NotModified { .. }) => return Ok(Got::Same),
            Err(error) => return Err(self.failed(&error)),
        };
        let large = || format!("{}: {} has more than {MOST} bytes", self.address, self.shown(name));
        if found.meta.size > MOST {
            return Err(large());
        }
        let tag = found.meta.e_tag.clone();
        let (mut out, mut rest) = (BytesMut::new(), found.into_stream());
        while let Some(part) = rest.try_next().await.map_err(|error| self.failed(&error))? {
            if (out.len() + part.len()) as u64 > MOST {
                return Err(large());
            }
            out.extend_from_slice(&part);
        }
        Ok(Got::Bytes(out.freeze(), tag))
    }

    /// Makes an object; false if there is one of that name.
    ///
    /// # Errors
    /// Why it cannot be made, in words.
    pub(crate) async fn create(&self, name: &Path, bytes: Vec<u8>) -> std::result::Result<bool, String> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(name, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Makes an object, or another one of it.
    ///
    /// # Errors
    /// Why it cannot be made, in words.
    pub(crate) async fn put(&self, name: &Path, bytes: Vec<u8>) -> std::result::Result<(), String> {
        self.objects.put_opts(name, bytes.into(), PutOptions::default()).await.map(drop).map_err(|error| self.failed(&error))
    }

    /// All objects below a name, in no order.
    pub(crate) fn list(&self, below: &Path) -> BoxStream<'static, std::result::Result<Listed, String>> {
        let address = self.address.clone();
        let listed = self.objects.list(Some(below)).map(move |found| match found {
            Ok(meta) => Ok(Listed { name: meta.location, size: meta.size, tag: meta.e_tag }),
            Err(error) => Err(format!("{address}: {}", words(&error))),
        });
        listed.boxed()
    }

    /// What comes next below a name.
    ///
    /// # Errors
    /// Why it cannot be said, in words.
    pub(crate) async fn parts(&self, below: &Path) -> std::result::Result<Vec<String>, String> {
        let found = self.objects.list_with_delimiter(Some(below)).await.map_err(|error| self.failed(&error))?;
        let last = |path: &Path| path.filename().map(str::to_owned);
        Ok(found.common_prefixes.iter().filter_map(last).collect())
    }

    /// Removes objects; gives how many, and what could not be removed in words.
    pub(crate) async fn remove(&self, names: Vec<Path>) -> (u64, Option<String>) {
        let (mut removed, mut failed) = (0, None);
        let mut done = self.objects.delete_stream(stream::iter(names.into_iter().map(Ok)).boxed());
        while let Some(one) = done.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => removed += 1,
                Err(error) => failed = Some(self.failed(&error)),
            }
        }
        (removed, failed)
    }
}

/// Whether a stream can be a part of an object's name: those of sidecars can.
pub(crate) fn is_stream(name: &str) -> bool {
    let fine = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    crate::streams::is_name(name) && name.bytes().all(fine) && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// What went wrong. Of what S3 answered only code and message: the rest may repeat what it was sent, such as a session's token.
fn words(error: &object_store::Error) -> String {
    let text = error.to_string();
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(part, _)| part.trim())
    };
    let said: Vec<&str> = ["Code", "Message"].into_iter().filter_map(part).collect();
    let text = if said.is_empty() { text.split('<').next().unwrap_or_default().to_owned() } else { said.join(": ") };
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_is_refused_and_told() {
        for fine in ["s3://bucket", "s3://a.b-1/", "s3://bucket/a/b c/", "file:///shared/folder", "file:///x y"] {
            check("to", fine).unwrap();
        }
        for wrong in
            ["s3://", "s3://Bucket", "s3://key:secret@bucket/x", "s3://ab", "s3://bucket/a//x", "file://folder", "gs://bucket", "x"]
        {
            let says = check("from", wrong).unwrap_err().message;
            assert!(says.contains("`fleet.from` must be \"s3://bucket/prefix\" or") && !says.contains("secret"), "{says}");
        }
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let source = "Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code>\
            <Message>The provided token has expired.</Message><Token-0>hush</Token-0><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let error = object_store::Error::Generic { store: "S3", source: source.into() };
        assert_eq!(words(&error), "ExpiredToken: The provided token has expired.");
        let error = object_store::Error::Generic { store: "S3", source: "busy <Token-0>hush</Token-0>".into() };
        assert_eq!(words(&error), "Generic S3 error: busy");
    }

    #[test]
    fn a_parcel_s_name_is_read_or_none() {
        let agent = ureq::Agent::new_with_defaults();
        let bucket = Bucket::open("to", "file:///shared/a b", agent).unwrap();
        let place = Numbered { stream: "pod-1.18f".into(), number: u64::MAX };
        let name = bucket.parcel("m.1", &place);
        assert_eq!(bucket.parcel_of(&name), Some(("m.1".to_owned(), place)));
        assert_eq!(bucket.shown(&name), "parcels/m.1/pod-1.18f/18446744073709551615.parquet");
        for parts in [
            ["parcels", "m", "s", "1.parquet"],
            ["parcels", "m", "s", "0000000000000000000x.parquet"],
            ["parcels", "m", "s", "00000000000000000001.part"],
            ["parcels", "m m", "s", "00000000000000000001.parquet"],
            ["parcels", "m", "a/b", "00000000000000000001.parquet"],
            ["other", "m", "s", "00000000000000000001.parquet"],
            ["parcels", "m", "s", "99999999999999999999.parquet"],
        ] {
            assert_eq!(bucket.parcel_of(&bucket.name(parts)), None, "{parts:?}");
        }
    }
}
