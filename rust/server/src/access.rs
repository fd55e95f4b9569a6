//! Who may do what: tokens with scopes, names that requests may be addressed to.

use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{Address, Config};
use crate::problem::{Outcome, Problem};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send events, labels, profiles.
    Ingest,
    /// Ask.
    Read,
    /// Change models, and everything else.
    Admin,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug)]
struct Holder {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
    models: Vec<String>,
}

/// Everybody who may do something.
#[derive(Debug, Default)]
pub struct Access {
    holders: Vec<Holder>,
    hosts: Vec<String>,
    /// Clients have shown a certificate of the authority: they may send and ask. Changing things takes a token even then.
    certified: bool,
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl Access {
    /// The administrator's token, and those of the configuration.
    pub fn new(admin: &str, config: &Config) -> Self {
        let all = vec![Scope::Ingest, Scope::Read, Scope::Admin];
        let mut holders = vec![Holder { name: "admin".into(), hash: hash(admin.as_bytes()), scopes: all, models: Vec::new() }];
        holders.extend(config.tokens.iter().map(|token| Holder {
            name: token.name.clone(),
            hash: hash(token.token.expose().as_bytes()),
            scopes: token.scopes.clone(),
            models: token.models.clone(),
        }));
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        hosts.extend(config.hosts.iter().map(|host| host.to_ascii_lowercase()));
        let named = config.listen.iter().chain(&config.health_listen).filter_map(|address| match address {
            Address::Net(address) if !address.ip().is_unspecified() => Some(match address {
                std::net::SocketAddr::V4(four) => four.ip().to_string(),
                std::net::SocketAddr::V6(six) => format!("[{}]", six.ip()),
            }),
            _ => None,
        });
        hosts.extend(named);
        let certified = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) && config.tokens.is_empty();
        Self { holders, hosts, certified }
    }

    /// Who asks, if he may.
    ///
    /// # Errors
    /// 401 without a known token, 403 for one that does not suffice.
    pub fn allow(&self, headers: &HeaderMap, scope: Scope, model: Option<&str>) -> Outcome<String> {
        let given = headers.get(hyper::header::AUTHORIZATION).map(hyper::header::HeaderValue::as_bytes);
        let token = given.and_then(|value| value.split_at_checked(7)).filter(|(kind, _)| kind.eq_ignore_ascii_case(b"bearer "));
        let Some((_, token)) = token else {
            if self.certified && given.is_none() {
                if scope == Scope::Admin {
                    return Err(Problem::new(403, "forbidden", "a certificate may send events and ask, not change things")
                        .hint("send the administrator's token too"));
                }
                return Ok("certificate".into());
            }
            return Err(Problem::new(401, "unauthorised", "the request has no bearer token").hint("send `Authorization: Bearer TOKEN`"));
        };
        let hash = hash(token);
        // All are compared, in constant time: how long it takes says nothing.
        let mut found = None;
        for holder in &self.holders {
            if bool::from(holder.hash.ct_eq(&hash)) {
                found = Some(holder);
            }
        }
        let Some(holder) = found else { return Err(Problem::new(401, "unauthorised", "the token is not known")) };
        if !holder.scopes.contains(&scope) && !holder.scopes.contains(&Scope::Admin) {
            let detail = format!("the token of {} may not do that: it needs the scope {}", holder.name, scope.word());
            return Err(Problem::new(403, "forbidden", detail));
        }
        if let Some(model) = model.filter(|_| !holder.models.is_empty())
            && !holder.models.iter().any(|pattern| matches(pattern, model))
        {
            return Err(Problem::new(403, "forbidden", format!("the token of {} is not for model {model:?}", holder.name)));
        }
        if model.is_none() && !holder.models.is_empty() && scope != Scope::Read {
            return Err(Problem::new(403, "forbidden", format!("the token of {} is for some models only", holder.name)));
        }
        Ok(holder.name.clone())
    }

    /// Models that the holder of this name may see.
    pub fn sees(&self, holder: &str, model: &str) -> bool {
        let known = self.holders.iter().find(|known| known.name == holder);
        known.is_none_or(|known| known.models.is_empty() || known.models.iter().any(|pattern| matches(pattern, model)))
    }

    /// Refuses requests under a foreign name (DNS rebinding).
    ///
    /// # Errors
    /// 421.
    pub fn named(&self, headers: &HeaderMap, authority: Option<&str>, unix: bool) -> Outcome<()> {
        let host = host(headers, authority);
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host.as_str(),
        };
        if unix || self.hosts.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(Problem::new(421, "misdirected request", format!("the request is addressed to {name:?}, which is not this sidecar"))
            .hint("add the name to `hosts` of the configuration"))
    }

    /// Refuses what a page of somebody else's could make a browser send (CSRF).
    ///
    /// # Errors
    /// 403.
    pub fn own_origin(&self, headers: &HeaderMap, authority: Option<&str>) -> Outcome<()> {
        let foreign = || Problem::new(403, "forbidden", "the request comes from a page of another origin");
        if let Some(origin) = headers.get(hyper::header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            let own = origin.split_once("://").is_some_and(|(_, named)| named == host(headers, authority));
            if !own {
                return Err(foreign());
            }
        }
        match headers.get("sec-fetch-site").and_then(|site| site.to_str().ok()) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(foreign()),
        }
    }
}

/// Whom a request is addressed to.
fn host(headers: &HeaderMap, authority: Option<&str>) -> String {
    let host = authority.or_else(|| headers.get(hyper::header::HOST).and_then(|host| host.to_str().ok()));
    host.unwrap_or_default().to_ascii_lowercase()
}

/// Whether a name fits a pattern with at most one star.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn access() -> Access {
        let text = "hosts = [\"Baro.Example\"]\n[[tokens]]\nname = \"app\"\ntoken = \"in\"\nscopes = [\"ingest\"]\nmodels = [\"fraud*\"]\n";
        Access::new("root", &Config::from_toml(text, "x").unwrap())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (hyper::header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn scopes_and_models_are_kept_to() {
        let access = access();
        let status = |token: &str, scope, model| {
            access
                .allow(&headers(&[("authorization", &format!("Bearer {token}"))]), scope, model)
                .map_or_else(|problem| problem.status, |_| 200)
        };
        assert_eq!(status("root", Scope::Admin, None), 200);
        assert_eq!(status("in", Scope::Ingest, Some("fraud-eu")), 200);
        assert_eq!(status("in", Scope::Ingest, Some("churn")), 403);
        assert_eq!(status("in", Scope::Read, Some("fraud")), 403);
        assert_eq!(status("in ", Scope::Ingest, Some("fraud")), 401);
        assert_eq!(access.allow(&HeaderMap::new(), Scope::Read, None).unwrap_err().status, 401);
        assert_eq!(access.allow(&headers(&[("authorization", "Basic cm9vdA==")]), Scope::Read, None).unwrap_err().status, 401);
    }

    #[test]
    fn a_certificate_alone_changes_nothing() {
        let text = "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
        let access = Access::new("root", &Config::from_toml(text, "x").unwrap());
        let status = |scope| access.allow(&HeaderMap::new(), scope, Some("m")).map_or_else(|problem| problem.status, |_| 200);
        assert_eq!([Scope::Ingest, Scope::Read, Scope::Admin].map(status), [200, 200, 403]);
        assert!(access.allow(&headers(&[("authorization", "Bearer root")]), Scope::Admin, Some("m")).is_ok());
    }

    #[test]
    fn foreign_names_and_origins_are_refused() {
        let access = access();
        let status = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            let outcome = access.named(&headers, None, false).and_then(|()| access.own_origin(&headers, None));
            outcome.map_or_else(|problem| problem.status, |()| 200)
        };
        assert_eq!(status(&[("host", "localhost:7464")]), 200);
        assert_eq!(status(&[("host", "[::1]:7464")]), 200);
        assert_eq!(status(&[("host", "baro.example")]), 200);
        assert_eq!(status(&[("host", "evil.example:7464")]), 421);
        assert_eq!(status(&[]), 421);
        assert_eq!(status(&[("host", "localhost:7464"), ("origin", "http://localhost:7464")]), 200);
        assert_eq!(status(&[("host", "localhost:7464"), ("origin", "http://localhost:80")]), 403);
        assert_eq!(status(&[("host", "localhost:7464"), ("origin", "null")]), 403);
        assert_eq!(status(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]), 403);
    }
}
