//! What people said of parts.

use rusqlite::{OptionalExtension as _, params};

use super::{DetectorRow, Store, StoreError, now};
use crate::verdict::{Judgement, Label};

/// What a person says of a part.
#[derive(Debug, Clone)]
pub(crate) struct NewJudgement {
    /// The part.
    pub(crate) part: i64,
    /// Its image.
    pub(crate) content: String,
    /// What it is.
    pub(crate) label: Label,
    /// Kind of the flaw.
    pub(crate) kind: Option<String>,
    /// Where the flaw is: a PNG file, white where it is.
    pub(crate) mask: Option<Vec<u8>>,
}

/// A judgement and the image it is about.
#[derive(Debug, Clone)]
pub(crate) struct JudgedImage {
    /// Number of the judgement.
    pub(crate) id: i64,
    /// Number of the part.
    pub(crate) part: i64,
    /// The image.
    pub(crate) content: String,
    /// Its extension.
    pub(crate) extension: String,
    /// Its name.
    pub(crate) name: String,
    /// Height and width in pixels.
    pub(crate) size: (usize, usize),
    /// What it is.
    pub(crate) label: Label,
    /// Kind of the flaw.
    pub(crate) kind: Option<String>,
    /// Where the flaw is.
    pub(crate) mask: Option<Vec<u8>>,
    /// What was said of the part when it was looked at: its score.
    pub(crate) score: f64,
    /// When it was judged, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Who judged.
    pub(crate) by: Option<String>,
}

impl Store {
    /// Remembers a judgement; an earlier one of the same image is withdrawn.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn judge(
        &self,
        detector: &DetectorRow,
        new: &NewJudgement,
        by: Option<&str>,
    ) -> Result<Judgement, StoreError> {
        self.write(|t| {
            t.execute(
                "DELETE FROM judgements WHERE detector = ?1 AND content = ?2",
                params![detector.id, new.content],
            )?;
            let at = now();
            t.execute(
                "INSERT INTO judgements(detector, part, content, label, kind, mask, by, at) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
                params![detector.id, new.part, new.content, new.label, new.kind, new.mask, by, at],
            )?;
            let id = t.last_insert_rowid();
            let word = match (new.label, &new.kind) {
                (Label::Good, _) => "good".to_owned(),
                (Label::Flaw, None) => "flaw".to_owned(),
                (Label::Flaw, Some(kind)) => format!("flaw, {kind}"),
            };
            let detail = format!("{}: part {} is {word}", detector.name, new.part);
            super::people::note(t, by, "judged", &detail)?;
            Ok(Judgement {
                id,
                label: new.label,
                kind: new.kind.clone(),
                mask: new.mask.is_some(),
                by: by.map(str::to_owned),
                at,
                learned: None,
            })
        })
    }

    /// Withdraws a judgement; returns the detector it was for.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn withdraw(
        &self,
        judgement: i64,
        by: Option<&str>,
    ) -> Result<Option<DetectorRow>, StoreError> {
        self.write(|t| {
            let detector = t
                .query_row(
                    "SELECT d.id, d.name, d.current FROM judgements j JOIN detectors d ON d.id = j.detector WHERE j.id = ?1",
                    [judgement],
                    |row| {
                        Ok(DetectorRow {
                            id: row.get(0)?,
                            name: row.get(1)?,
                            current: row.get(2)?,
                        })
                    },
                )
                .optional()?;
            if let Some(detector) = &detector {
                t.execute("DELETE FROM judgements WHERE id = ?1", [judgement])?;
                let detail = format!("{}: judgement {judgement}", detector.name);
                super::people::note(t, by, "judgement withdrawn", &detail)?;
            }
            Ok(detector)
        })
    }

    /// All judgements for a detector, the oldest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn judgements(&self, detector: i64) -> Result<Vec<JudgedImage>, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT j.id, j.part, j.content, i.kind, p.name, i.height, i.width, j.label, j.kind, j.mask, p.score, j.at, j.by
                 FROM judgements j JOIN images i USING(content) JOIN parts p ON p.id = j.part
                 WHERE j.detector = ?1 ORDER BY j.id",
            )?
            .query_map([detector], |row| {
                Ok(JudgedImage {
                    id: row.get(0)?,
                    part: row.get(1)?,
                    content: row.get(2)?,
                    extension: row.get(3)?,
                    name: row.get(4)?,
                    size: (row.get::<_, i64>(5)? as usize, row.get::<_, i64>(6)? as usize),
                    label: row.get(7)?,
                    kind: row.get(8)?,
                    mask: row.get(9)?,
                    score: row.get(10)?,
                    at: row.get(11)?,
                    by: row.get(12)?,
                })
            })?
            .collect()
        })
    }

    /// How many judgements the version in force does not know, or knows although they were withdrawn.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn pending(&self, detector: i64) -> Result<usize, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "WITH known AS (SELECT l.value AS id FROM detectors d JOIN versions v ON v.detector = d.id AND v.number = d.current,
                                json_each(v.lessons) l WHERE d.id = ?1)
                 SELECT (SELECT COUNT(*) FROM judgements WHERE detector = ?1 AND id NOT IN (SELECT id FROM known))
                      + (SELECT COUNT(*) FROM known WHERE id NOT IN (SELECT id FROM judgements WHERE detector = ?1))",
            )?
            .query_row([detector], |row| row.get::<_, i64>(0))
            .map(|n| n as usize)
        })
    }

    /// Kinds of flaws that were named for a detector.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn kinds(&self, detector: i64) -> Result<Vec<String>, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT DISTINCT kind FROM judgements WHERE detector = ?1 AND kind IS NOT NULL ORDER BY kind",
            )?
            .query_map([detector], |row| row.get(0))?
            .collect()
        })
    }
}
