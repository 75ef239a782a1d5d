//! What is remembered: detectors and their versions, parts that were looked at, judgements, people. One `SQLite` file, one connection;
//! what is acknowledged is on disk.

mod detectors;
mod judgements;
mod parts;
mod people;
mod schema;
mod versions;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

pub(crate) use detectors::{DetectorRow, GoodImage};
pub(crate) use judgements::{JudgedImage, NewJudgement};
pub(crate) use parts::{Bucket, Counts, NewPart, Order, PartFilter, PartRow};
pub(crate) use people::{AuditEntry, Role, User};
pub(crate) use versions::{NewVersion, Version, VersionKind};

/// Why something could not be remembered or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database.
    #[error("{}: {source}\nhint: is the disk full, or the file damaged or another program's?", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// A database of a later version.
    #[error("{}: was written by a later flawtune (layout {found}, this one knows {known})\nhint: update flawtune", path.display())]
    Later {
        /// Its file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The last layout that this version knows.
        known: i64,
    },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl Store {
    /// Opens the database at `path`, which is made where there is none, and brings it to the present layout.
    ///
    /// # Errors
    /// A file that cannot be opened or written, or is of a later version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Database {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(failed)?;
        // a commit is on disk when it returns, whatever becomes of the process or the power
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
            )
            .map_err(failed)?;
        schema::migrate(&mut connection).map_err(|e| match e {
            schema::MigrateError::Later { found, known } => StoreError::Later {
                path: path.to_owned(),
                found,
                known,
            },
            schema::MigrateError::Database(source) => failed(source),
        })?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.connection();
        work(&connection).map_err(|source| self.failed(source))
    }

    /// Writes, all or nothing.
    fn write<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let all = || {
            let transaction = connection.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        all().map_err(|source| self.failed(source))
    }

    /// As [`Self::write`], but does not wait for the disk: nothing is lost when the process is killed, the last of it when the power
    /// goes.
    fn write_soon<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let all = || {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let transaction = connection.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let result = all();
        let back = connection.pragma_update(None, "synchronous", "FULL");
        result
            .and_then(|value| back.map(|()| value))
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            source,
        }
    }
}
