//! Parts that were looked at.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Store, StoreError};
use crate::verdict::{Judgement, Label, Part, Place, Source};

/// From how much doubt on a part is called doubtful: a probability between a tenth and nine tenths, or a part that drifted.
pub(crate) const DOUBTFUL: f64 = 0.2;

/// A part that was looked at and has no number yet.
#[derive(Debug, Clone)]
pub(crate) struct NewPart {
    /// The detector.
    pub(crate) detector: i64,
    /// Everything but number and judgement.
    pub(crate) part: Part,
    /// Scores of its patches, that maps are drawn of.
    pub(crate) patches: Vec<f32>,
    /// Extension of its image, where that lies on disk.
    pub(crate) extension: Option<&'static str>,
}

/// A part, its detector's number, and what maps are drawn of.
#[derive(Debug, Clone)]
pub(crate) struct PartRow {
    /// The detector.
    pub(crate) detector: i64,
    /// The part.
    pub(crate) part: Part,
    /// Scores of its patches.
    pub(crate) patches: Vec<f32>,
    /// Extension of the image.
    pub(crate) kind: String,
}

/// In which order parts are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// The newest first.
    #[default]
    New,
    /// Those that most deserve a look first.
    Doubtful,
}

/// Which parts are listed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PartFilter {
    /// In which order.
    pub(crate) order: Order,
    /// Only those that were judged, or only those that were not.
    pub(crate) judged: Option<bool>,
    /// Only flaws, or only good ones.
    pub(crate) flaw: Option<bool>,
    /// Only those whose image is still there.
    pub(crate) kept: bool,
    /// Only those with smaller numbers.
    pub(crate) before: Option<i64>,
    /// At most so many.
    pub(crate) limit: usize,
}

/// How many parts there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// Parts that were looked at.
    pub(crate) parts: i64,
    /// Those that were called flawed.
    pub(crate) stopped: i64,
    /// Those that deserve a person's look.
    pub(crate) doubtful: i64,
}

/// Parts of a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Bucket {
    /// When it begins, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Parts that were looked at.
    pub(crate) parts: i64,
    /// Those that were called flawed.
    pub(crate) stopped: i64,
    /// Those that deserved a person's look.
    pub(crate) doubtful: i64,
    /// Mean drift.
    pub(crate) drift: f64,
}

impl ToSql for Label {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Good => "good",
            Self::Flaw => "flaw",
        }
        .into())
    }
}

impl FromSql for Label {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "good" => Ok(Self::Good),
            "flaw" => Ok(Self::Flaw),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Source {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for Source {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value.as_str()? {
            "upload" => Self::Upload,
            "folder" => Self::Folder,
            "camera" => Self::Camera,
            _ => Self::Post,
        })
    }
}

const COLUMNS: &str = "p.id, d.name, p.version, p.content, p.name, p.source, p.at, p.height, p.width, p.score, \
    p.probability, p.flaw, p.kind, p.drift, p.doubt, p.threshold, p.regions, i.kind, \
    j.id, j.label, j.kind, j.mask IS NOT NULL, j.by, j.at, \
    (SELECT v.number FROM versions v, json_each(v.lessons) l WHERE v.detector = d.id AND v.number = d.current AND l.value = j.id)";
const TABLES: &str = "parts p JOIN detectors d ON d.id = p.detector LEFT JOIN images i ON i.content = p.content \
    LEFT JOIN judgements j ON j.detector = p.detector AND j.content = p.content";

fn judgement(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Judgement>> {
    let Some(id) = row.get(first)? else {
        return Ok(None);
    };
    Ok(Some(Judgement {
        id,
        label: row.get(first + 1)?,
        kind: row.get(first + 2)?,
        mask: row.get(first + 3)?,
        by: row.get(first + 4)?,
        at: row.get(first + 5)?,
        learned: row.get(first + 6)?,
    }))
}

fn part(row: &Row<'_>) -> rusqlite::Result<Part> {
    let flaw: bool = row.get(11)?;
    let regions: String = row.get(16)?;
    let regions: Vec<Place> = serde_json::from_str(&regions).unwrap_or_default();
    Ok(Part {
        part: row.get(0)?,
        detector: row.get(1)?,
        version: row.get(2)?,
        content: row.get(3)?,
        name: row.get(4)?,
        source: row.get(5)?,
        at: row.get(6)?,
        size: (
            row.get::<_, i64>(7)? as usize,
            row.get::<_, i64>(8)? as usize,
        ),
        score: row.get(9)?,
        probability: row.get(10)?,
        flaw,
        verdict: if flaw { Label::Flaw } else { Label::Good },
        kind: row.get(12)?,
        drift: row.get(13)?,
        doubt: row.get(14)?,
        threshold: row.get(15)?,
        regions,
        judgement: judgement(row, 18)?,
        kept: row.get::<_, Option<String>>(17)?.is_some(),
    })
}

fn counts(c: &Connection, detector: i64, since: i64) -> rusqlite::Result<Counts> {
    c.prepare_cached(
        "SELECT COUNT(*), COALESCE(SUM(flaw), 0), COALESCE(SUM(doubt >= ?3), 0) FROM parts WHERE detector = ?1 AND at >= ?2",
    )?
    .query_row(params![detector, since, DOUBTFUL], |row| {
        Ok(Counts {
            parts: row.get(0)?,
            stopped: row.get(1)?,
            doubtful: row.get(2)?,
        })
    })
}

impl Store {
    /// Remembers parts that were looked at, and gives each its number.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn add_parts(&self, parts: &[NewPart]) -> Result<Vec<i64>, StoreError> {
        self.write_soon(|t| {
            let mut insert = t.prepare_cached(
                "INSERT INTO parts(detector, version, content, name, source, at, height, width, score, probability, flaw, kind, drift, \
                 doubt, threshold, regions, patches) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
            )?;
            let mut image = t.prepare_cached(
                "INSERT INTO images(content, kind, height, width, added) VALUES(?1,?2,?3,?4,?5) ON CONFLICT DO NOTHING",
            )?;
            parts
                .iter()
                .map(|new| {
                    let (p, (height, width)) = (&new.part, new.part.size);
                    if let Some(extension) = new.extension {
                        image.execute(params![p.content, extension, height as i64, width as i64, p.at])?;
                    }
                    let patches: Vec<u8> = new.patches.iter().flat_map(|v| v.to_le_bytes()).collect();
                    insert.execute(params![
                        new.detector,
                        p.version,
                        p.content,
                        p.name,
                        p.source,
                        p.at,
                        height as i64,
                        width as i64,
                        p.score,
                        p.probability,
                        p.flaw,
                        p.kind,
                        p.drift,
                        p.doubt,
                        p.threshold,
                        serde_json::to_string(&p.regions).unwrap_or_default(),
                        patches,
                    ])?;
                    Ok(t.last_insert_rowid())
                })
                .collect()
        })
    }

    /// A part.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn part(&self, id: i64) -> Result<Option<PartRow>, StoreError> {
        self.read(|c| {
            c.prepare_cached(&format!(
                "SELECT {COLUMNS}, p.detector, p.patches FROM {TABLES} WHERE p.id = ?1"
            ))?
            .query_row([id], |row| {
                let patches: Vec<u8> = row.get(26)?;
                let number =
                    |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                Ok(PartRow {
                    detector: row.get(25)?,
                    part: part(row)?,
                    patches: patches.chunks_exact(4).map(number).collect(),
                    kind: row.get::<_, Option<String>>(17)?.unwrap_or_default(),
                })
            })
            .optional()
        })
    }

    /// Parts of a detector.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn parts(
        &self,
        detector: i64,
        filter: &PartFilter,
    ) -> Result<Vec<Part>, StoreError> {
        let mut wanted = String::from("p.detector = ?1 AND p.id < ?2");
        for (on, yes, no) in [
            (filter.judged, "j.id IS NOT NULL", "j.id IS NULL"),
            (filter.flaw, "p.flaw", "NOT p.flaw"),
            (filter.kept.then_some(true), "i.content IS NOT NULL", ""),
        ] {
            if let Some(on) = on {
                wanted.push_str(" AND ");
                wanted.push_str(if on { yes } else { no });
            }
        }
        let order = match filter.order {
            Order::New => "p.id DESC",
            Order::Doubtful => "p.doubt DESC, p.id DESC",
        };
        self.read(|c| {
            c.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE {wanted} ORDER BY {order} LIMIT ?3"
            ))?
            .query_map(
                params![
                    detector,
                    filter.before.unwrap_or(i64::MAX),
                    filter.limit as i64
                ],
                part,
            )?
            .collect()
        })
    }

    /// How many parts a detector looked at since a time (milliseconds since 1970).
    ///
    /// # Errors
    /// The database.
    pub(crate) fn counts(&self, detector: i64, since: i64) -> Result<Counts, StoreError> {
        self.read(|c| counts(c, detector, since))
    }

    /// Parts over time, in stretches of `length` milliseconds.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn history(
        &self,
        detector: i64,
        length: i64,
        since: i64,
    ) -> Result<Vec<Bucket>, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT at / ?2 * ?2 AS begins, COUNT(*), SUM(flaw), SUM(doubt >= ?4), AVG(MAX(drift, 0)) FROM parts
                 WHERE detector = ?1 AND at >= ?3 GROUP BY begins ORDER BY begins",
            )?
            .query_map(params![detector, length, since, DOUBTFUL], |row| {
                Ok(Bucket {
                    at: row.get(0)?,
                    parts: row.get(1)?,
                    stopped: row.get(2)?,
                    doubtful: row.get(3)?,
                    drift: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Forgets images that nobody judged, that no detector was fitted to, and that are not among the newest `keep` parts. Returns their
    /// contents and extensions: their files are to be removed.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn forget_images(&self, keep: usize) -> Result<Vec<(String, String)>, StoreError> {
        self.write(|t| {
            t.prepare_cached(
                "DELETE FROM images WHERE content NOT IN (SELECT content FROM good)
                 AND content NOT IN (SELECT content FROM judgements)
                 AND content IN (SELECT content FROM parts)
                 AND content NOT IN (SELECT content FROM parts ORDER BY id DESC LIMIT ?1)
                 RETURNING content, kind",
            )?
            .query_map([keep as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })
    }
}
