//! Who asks, and what they may do: the guard gives one to every request that it lets in, and handlers may read it.

use std::fmt;
use std::sync::Arc;

use crate::model::InstanceName;
use crate::trust::Access;
use crate::trust::tokens::{Token, Tokens};

/// See the module.
#[derive(Clone)]
pub struct Pass {
    pub who: Who,
    pub access: Access,
    /// The token that it stands on, and who knows whether that still counts.
    token: Option<(Arc<Tokens>, Token)>,
}

/// How somebody proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By a certificate of that name.
    Certificate(InstanceName),
    /// By a token of that name.
    Token(InstanceName),
    /// By the token that the controller keeps for the users of its own machine.
    Local,
    /// Not at all, as the settings want it.
    Anybody,
}

impl Pass {
    pub fn new(who: Who, access: Access) -> Self {
        Self { who, access, token: None }
    }

    /// Stands on a token until that ends.
    pub fn by_token(tokens: Arc<Tokens>, token: Token) -> Self {
        Self { who: Who::Token(token.name.clone()), access: token.access, token: Some((tokens, token)) }
    }

    /// Resolves when it counts no more. What stands on a certificate ends with its connection.
    pub async fn ended(&self) {
        match &self.token {
            Some((tokens, token)) => tokens.ended(token).await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(name) => write!(f, "certificate `{name}`"),
            Self::Token(name) => write!(f, "token `{name}`"),
            Self::Local => f.write_str("this machine's token"),
            Self::Anybody => f.write_str("anybody"),
        }
    }
}
