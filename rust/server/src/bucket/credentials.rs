//! Keys for S3 as AWS's own tools find them: in the environment, then in the files of a profile. What a machine or pod is given by its
//! cloud is asked for by `object_store`.
//!
//! Format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use barograph_core::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};

/// Bytes of such a file.
const MOST: u64 = 1 << 20;
/// Variables that say who this is: beside one of them no file is asked.
const SAID: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A builder that knows what environment and files say.
///
/// # Errors
/// `InvalidArgument` for a profile that is named and not there, or a file that cannot be read.
pub(super) fn builder() -> Result<AmazonS3Builder> {
    found(AmazonS3Builder::from_env(), &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn found(mut builder: AmazonS3Builder, variable: &dyn Fn(&str) -> Option<String>) -> Result<AmazonS3Builder> {
    let home = variable("HOME").map(PathBuf::from);
    let file = |name: &str, own: &str| variable(name).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".aws").join(own)));
    let named = variable("AWS_PROFILE");
    let profile = named.clone().unwrap_or_else(|| "default".to_owned());
    let mut known = BTreeMap::new();
    let mut there = false;
    for (path, title) in [
        (file("AWS_CONFIG_FILE", "config"), if profile == "default" { profile.clone() } else { format!("profile {profile}") }),
        (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile.clone()),
    ] {
        let Some(text) = path.as_deref().map(read).transpose()?.flatten() else { continue };
        if let Some(section) = section(&text, &title) {
            there = true;
            known.extend(section);
        }
    }
    let said = SAID.iter().any(|name| variable(name).is_some());
    if let Some(named) = named.filter(|_| !there && !said) {
        return Err(Error::invalid(format!("AWS_PROFILE names the profile {named:?}, which no file has"))
            .hint("~/.aws/credentials and ~/.aws/config are read, or what AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name"));
    }
    let mut take = |name: &str, key: Key| {
        if let Some(value) = known.get(name) {
            builder = std::mem::take(&mut builder).with_config(key, value);
        }
    };
    if !said {
        take("aws_access_key_id", Key::AccessKeyId);
        take("aws_secret_access_key", Key::SecretAccessKey);
        take("aws_session_token", Key::Token);
    }
    if variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).is_none() {
        take("region", Key::Region);
    }
    if ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"].iter().all(|name| variable(name).is_none()) {
        take("endpoint_url", Key::Endpoint);
    }
    Ok(builder)
}

/// The text of a file, if there is one.
fn read(path: &Path) -> Result<Option<String>> {
    let wrong = |why: String| Error::invalid(format!("the AWS file {} could not be read: {why}", path.display()));
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        opened => opened.map_err(|error| wrong(error.to_string()))?,
    };
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(wrong(format!("it has more than {MOST} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| wrong("it is no UTF-8".to_owned()))
}

/// Keys and values of the section of this title, if there is one.
fn section(text: &str, title: &str) -> Option<BTreeMap<String, String>> {
    let (mut inside, mut out) = (false, None);
    for line in text.lines() {
        // What is indented belongs to the key above it: none of ours has such.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = name.0.split_whitespace().collect::<Vec<_>>().join(" ") == title;
            if inside {
                out.get_or_insert_with(BTreeMap::new);
            }
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && let Some(out) = &mut out
        {
            out.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(variables: &[(&str, &str)]) -> Result<[Option<String>; 5]> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let builder = found(AmazonS3Builder::new(), &variable)?;
        Ok([Key::AccessKeyId, Key::SecretAccessKey, Key::Token, Key::Region, Key::Endpoint].map(|key| builder.get_config_value(&key)))
    }

    #[test]
    fn a_profile_says_what_the_environment_does_not() {
        let folder = std::env::temp_dir().join(format!("barograph-aws-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(".aws")).unwrap();
        let credentials = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=B=/+\n[ other ]\nAWS_ACCESS_KEY_ID=C\n\
            aws_secret_access_key=D\naws_session_token=E\n";
        std::fs::write(folder.join(".aws/credentials"), credentials).unwrap();
        let config =
            "[default]\nregion = eu-west-1\n[profile other]\nregion=us-west-2\nendpoint_url = https://s3.local\ns3 =\n  region=x\n";
        std::fs::write(folder.join(".aws/config"), config).unwrap();
        let home = ("HOME", folder.to_str().unwrap());
        let some = |values: [&str; 5]| values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()));
        assert_eq!(keys(&[home]).unwrap(), some(["A", "B=/+", "", "eu-west-1", ""]));
        assert_eq!(keys(&[home, ("AWS_PROFILE", "other")]).unwrap(), some(["C", "D", "E", "us-west-2", "https://s3.local"]));
        // Keys of two places would not fit each other.
        assert_eq!(keys(&[home, ("AWS_ACCESS_KEY_ID", "X"), ("AWS_REGION", "r")]).unwrap(), some([""; 5]));
        let says = keys(&[home, ("AWS_PROFILE", "third")]).unwrap_err().message;
        assert!(says.contains("\"third\", which no file has"), "{says}");
        assert_eq!(keys(&[("HOME", "/nowhere")]).unwrap(), some([""; 5]));
        std::fs::write(folder.join(".aws/credentials"), vec![0xff; 10]).unwrap();
        let says = keys(&[home]).unwrap_err().message;
        assert!(says.contains("no UTF-8") && !says.contains("A\n"), "{says}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
