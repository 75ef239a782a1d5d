//! The layout of the database, and the way from each earlier one.

use rusqlite::Connection;

/// What each layout adds to the one before. A step is never changed once it was in a release.
const STEPS: [&str; 1] = ["CREATE TABLE detectors(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created INTEGER NOT NULL,
        current INTEGER
     );
     CREATE TABLE images(
        content TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        height INTEGER NOT NULL,
        width INTEGER NOT NULL,
        added INTEGER NOT NULL
     );
     CREATE TABLE good(
        detector INTEGER NOT NULL REFERENCES detectors(id) ON DELETE CASCADE,
        content TEXT NOT NULL REFERENCES images(content),
        name TEXT NOT NULL,
        excluded INTEGER NOT NULL DEFAULT 0,
        added INTEGER NOT NULL,
        PRIMARY KEY(detector, content)
     );
     CREATE TABLE versions(
        detector INTEGER NOT NULL REFERENCES detectors(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        by TEXT,
        kind TEXT NOT NULL,
        note TEXT NOT NULL,
        file TEXT NOT NULL,
        base INTEGER NOT NULL,
        lessons TEXT NOT NULL,
        threshold REAL NOT NULL,
        given INTEGER NOT NULL,
        good INTEGER NOT NULL,
        defects INTEGER NOT NULL,
        before TEXT,
        after TEXT,
        oddest TEXT,
        PRIMARY KEY(detector, number)
     );
     CREATE TABLE parts(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        detector INTEGER NOT NULL REFERENCES detectors(id) ON DELETE CASCADE,
        version INTEGER NOT NULL,
        content TEXT NOT NULL,
        name TEXT NOT NULL,
        source TEXT NOT NULL,
        at INTEGER NOT NULL,
        height INTEGER NOT NULL,
        width INTEGER NOT NULL,
        score REAL NOT NULL,
        probability REAL NOT NULL,
        flaw INTEGER NOT NULL,
        kind TEXT,
        drift REAL NOT NULL,
        doubt REAL NOT NULL,
        threshold REAL NOT NULL,
        regions TEXT NOT NULL,
        patches BLOB NOT NULL
     );
     CREATE INDEX parts_newest ON parts(detector, id);
     CREATE INDEX parts_doubtful ON parts(detector, doubt, id);
     CREATE INDEX parts_content ON parts(content);
     CREATE INDEX parts_at ON parts(detector, at);
     CREATE TABLE judgements(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        detector INTEGER NOT NULL REFERENCES detectors(id) ON DELETE CASCADE,
        part INTEGER NOT NULL REFERENCES parts(id),
        content TEXT NOT NULL,
        label TEXT NOT NULL,
        kind TEXT,
        mask BLOB,
        by TEXT,
        at INTEGER NOT NULL,
        UNIQUE(detector, content)
     );
     CREATE TABLE users(
        name TEXT PRIMARY KEY,
        hash TEXT NOT NULL,
        role TEXT NOT NULL
     );
     CREATE TABLE sessions(
        token TEXT PRIMARY KEY,
        csrf TEXT NOT NULL,
        user TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE,
        expires INTEGER NOT NULL
     );
     CREATE TABLE audit(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        by TEXT,
        action TEXT NOT NULL,
        detail TEXT NOT NULL
     );"];

pub(super) enum MigrateError {
    Later { found: i64, known: i64 },
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Goes the steps that the database has not gone yet, each whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), MigrateError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = STEPS.len() as i64;
    if found > known {
        return Err(MigrateError::Later { found, known });
    }
    for (number, step) in (1..).zip(STEPS).skip(found.max(0) as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
