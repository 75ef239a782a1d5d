//! Versions of detectors: each is kept.

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DetectorRow, Store, StoreError, now};

/// How a version came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VersionKind {
    /// A file was opened.
    Opened,
    /// Fitted to good images.
    Fitted,
    /// Taught by judgements.
    Learned,
    /// Another threshold.
    Threshold,
}

impl VersionKind {
    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Fitted => "fitted",
            Self::Learned => "learned",
            Self::Threshold => "threshold",
        }
    }
}

impl FromSql for VersionKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value.as_str()? {
            "opened" => Self::Opened,
            "fitted" => Self::Fitted,
            "learned" => Self::Learned,
            _ => Self::Threshold,
        })
    }
}

impl ToSql for VersionKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

/// A version that is about to be.
#[derive(Debug, Clone)]
pub(crate) struct NewVersion {
    /// How it came to be.
    pub(crate) kind: VersionKind,
    /// In a sentence.
    pub(crate) note: String,
    /// Name of its file in the detector's folder; several versions that differ in the threshold share one.
    pub(crate) file: String,
    /// The version that was fitted or opened, of which this one learned; `None`: itself.
    pub(crate) base: Option<i64>,
    /// Judgements that it learned.
    pub(crate) lessons: Vec<i64>,
    /// Its threshold.
    pub(crate) threshold: f64,
    /// Whether the threshold is other than the file's.
    pub(crate) given: bool,
    /// Good images that it learned.
    pub(crate) good: usize,
    /// Defects that it learned.
    pub(crate) defects: usize,
    /// The same images by the version before and by this one, as JSON.
    pub(crate) before: Option<String>,
    /// See `before`.
    pub(crate) after: Option<String>,
    /// The oddest good images, as JSON.
    pub(crate) oddest: Option<String>,
}

/// A version.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Its number: 1, 2, …
    pub(crate) number: i64,
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Who made it.
    pub(crate) by: Option<String>,
    /// The version that was fitted or opened.
    pub(crate) base: i64,
    /// The rest.
    pub(crate) is: NewVersion,
}

const COLUMNS: &str = "number, at, by, base, kind, note, file, lessons, threshold, given, good, \
                       defects, before, after, oddest";

fn row(row: &Row<'_>) -> rusqlite::Result<Version> {
    let lessons: String = row.get(7)?;
    let base = row.get(3)?;
    Ok(Version {
        number: row.get(0)?,
        at: row.get(1)?,
        by: row.get(2)?,
        base,
        is: NewVersion {
            kind: row.get(4)?,
            note: row.get(5)?,
            file: row.get(6)?,
            base: Some(base),
            lessons: serde_json::from_str(&lessons).unwrap_or_default(),
            threshold: row.get(8)?,
            given: row.get(9)?,
            good: row.get::<_, i64>(10)? as usize,
            defects: row.get::<_, i64>(11)? as usize,
            before: row.get(12)?,
            after: row.get(13)?,
            oddest: row.get(14)?,
        },
    })
}

fn one(c: &Connection, detector: i64, number: i64) -> rusqlite::Result<Option<Version>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM versions WHERE detector = ?1 AND number = ?2"
    ))?
    .query_row(params![detector, number], row)
    .optional()
}

impl Store {
    /// All versions of a detector, the newest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn versions(&self, detector: i64) -> Result<Vec<Version>, StoreError> {
        self.read(|c| {
            c.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM versions WHERE detector = ?1 ORDER BY number DESC"
            ))?
            .query_map([detector], row)?
            .collect()
        })
    }

    /// A version of a detector.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn version(
        &self,
        detector: i64,
        number: i64,
    ) -> Result<Option<Version>, StoreError> {
        self.read(|c| one(c, detector, number))
    }

    /// The number that the next version will have.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn next_version(&self, detector: i64) -> Result<i64, StoreError> {
        self.read(|c| next(c, detector))
    }

    /// Adds a version and puts it in force. Its file is on disk already.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn add_version(
        &self,
        detector: &DetectorRow,
        new: &NewVersion,
        by: Option<&str>,
    ) -> Result<i64, StoreError> {
        self.write(|t| {
            let number = next(t, detector.id)?;
            let lessons = serde_json::to_string(&new.lessons).unwrap_or_default();
            t.execute(
                "INSERT INTO versions(detector, number, at, by, base, kind, note, file, lessons, threshold, given, good, defects, \
                 before, after, oddest) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
                params![
                    detector.id,
                    number,
                    now(),
                    by,
                    new.base.unwrap_or(number),
                    new.kind,
                    new.note,
                    new.file,
                    lessons,
                    new.threshold,
                    new.given,
                    new.good as i64,
                    new.defects as i64,
                    new.before,
                    new.after,
                    new.oddest,
                ],
            )?;
            put_in_force(t, detector, number, by)?;
            Ok(number)
        })
    }

    /// Goes back to a version; whether there is such a version.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn roll_back(
        &self,
        detector: &DetectorRow,
        number: i64,
        by: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.write(|t| {
            if one(t, detector.id, number)?.is_none() {
                return Ok(false);
            }
            put_in_force(t, detector, number, by)?;
            Ok(true)
        })
    }
}

fn next(c: &Connection, detector: i64) -> rusqlite::Result<i64> {
    c.prepare_cached("SELECT COALESCE(MAX(number), 0) + 1 FROM versions WHERE detector = ?1")?
        .query_row([detector], |row| row.get(0))
}

fn put_in_force(
    c: &Connection,
    detector: &DetectorRow,
    number: i64,
    by: Option<&str>,
) -> rusqlite::Result<()> {
    c.execute(
        "UPDATE detectors SET current = ?2 WHERE id = ?1",
        params![detector.id, number],
    )?;
    let detail = format!("{}: version {number}", detector.name);
    super::people::note(c, by, "version in force", &detail)
}
