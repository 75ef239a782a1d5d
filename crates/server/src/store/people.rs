//! People, their sessions, and who did what.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Store, StoreError, now};

/// What a person may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Look, have parts looked at, judge.
    Operator,
    /// Fit, teach, choose thresholds, go back to a version.
    Engineer,
    /// People, and removing detectors.
    Admin,
}

impl Role {
    /// As a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "admin" => Self::Admin,
            "engineer" => Self::Engineer,
            _ => Self::Operator,
        }
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct User {
    /// Name to log in with.
    pub(crate) name: String,
    /// What the person may do.
    pub(crate) role: Role,
}

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Who; nobody in particular where nobody logs in.
    pub(crate) by: Option<String>,
    /// What.
    pub(crate) action: String,
    /// Of what.
    pub(crate) detail: String,
}

/// Notes who did what.
pub(super) fn note(
    c: &Connection,
    by: Option<&str>,
    action: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT INTO audit(at, by, action, detail) VALUES(?1, ?2, ?3, ?4)")?
        .execute(params![now(), by, action, detail])
        .map(drop)
}

impl Store {
    /// The last things that were done, the newest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT at, by, action, detail FROM audit ORDER BY id DESC LIMIT ?1")?
                .query_map([limit as i64], |row| {
                    Ok(AuditEntry {
                        at: row.get(0)?,
                        by: row.get(1)?,
                        action: row.get(2)?,
                        detail: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    /// Everybody, by name.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn users(&self) -> Result<Vec<User>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT name, role FROM users ORDER BY name")?
                .query_map([], |row| {
                    Ok(User {
                        name: row.get(0)?,
                        role: Role::of(&row.get::<_, String>(1)?),
                    })
                })?
                .collect()
        })
    }

    /// A person and the hash of the password.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn user(&self, name: &str) -> Result<Option<(User, String)>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT name, role, hash FROM users WHERE name = ?1")?
                .query_row([name], |row| {
                    let user = User {
                        name: row.get(0)?,
                        role: Role::of(&row.get::<_, String>(1)?),
                    };
                    Ok((user, row.get(2)?))
                })
                .optional()
        })
    }

    /// Adds a person, or gives one another password and role, which ends the person's sessions.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn set_user(
        &self,
        user: &User,
        hash: &str,
        by: Option<&str>,
    ) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute("DELETE FROM sessions WHERE user = ?1", [&user.name])?;
            t.execute(
                "INSERT INTO users(name, hash, role) VALUES(?1, ?2, ?3)
                 ON CONFLICT(name) DO UPDATE SET hash = excluded.hash, role = excluded.role",
                params![user.name, hash, user.role.name()],
            )?;
            let detail = format!("{} ({})", user.name, user.role.name());
            note(t, by, "person added or changed", &detail)
        })
    }

    /// Removes a person; whether there was one.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn remove_user(&self, name: &str, by: Option<&str>) -> Result<bool, StoreError> {
        self.write(|t| {
            let gone = t.execute("DELETE FROM users WHERE name = ?1", [name])?;
            note(t, by, "person removed", name)?;
            Ok(gone > 0)
        })
    }

    /// Begins a session. `token` and `csrf` are as the store keeps them: hashed.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn begin_session(
        &self,
        token: &str,
        csrf: &str,
        user: &str,
        expires: i64,
    ) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute("DELETE FROM sessions WHERE expires < ?1", [now()])?;
            t.execute(
                "INSERT INTO sessions(token, csrf, user, expires) VALUES(?1, ?2, ?3, ?4)",
                params![token, csrf, user, expires],
            )?;
            note(t, Some(user), "logged in", "")
        })
    }

    /// The person of a session that has not expired, and its CSRF token.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn session(&self, token: &str) -> Result<Option<(User, String)>, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT u.name, u.role, s.csrf FROM sessions s JOIN users u ON u.name = s.user
                 WHERE s.token = ?1 AND s.expires >= ?2",
            )?
            .query_row(params![token, now()], |row| {
                let user = User {
                    name: row.get(0)?,
                    role: Role::of(&row.get::<_, String>(1)?),
                };
                Ok((user, row.get(2)?))
            })
            .optional()
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn end_session(&self, token: &str) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute("DELETE FROM sessions WHERE token = ?1", [token])
                .map(drop)
        })
    }
}
