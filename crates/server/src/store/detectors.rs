//! Detectors, and the good images that they are fitted to.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError, now};

/// A detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetectorRow {
    /// Its number.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) name: String,
    /// The version in force; none before it was fitted.
    pub(crate) current: Option<i64>,
}

/// A good image that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoodImage {
    /// BLAKE3 hash of the file, in hex.
    pub(crate) content: String,
    /// Its extension, by its content.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether a person left it out.
    pub(crate) excluded: bool,
}

fn row(row: &Row<'_>) -> rusqlite::Result<DetectorRow> {
    Ok(DetectorRow {
        id: row.get(0)?,
        name: row.get(1)?,
        current: row.get(2)?,
    })
}

impl Store {
    /// All detectors, by name.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn detectors(&self) -> Result<Vec<DetectorRow>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT id, name, current FROM detectors ORDER BY name")?
                .query_map([], row)?
                .collect()
        })
    }

    /// The detector of a name.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn detector(&self, name: &str) -> Result<Option<DetectorRow>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT id, name, current FROM detectors WHERE name = ?1")?
                .query_row([name], row)
                .optional()
        })
    }

    /// A new detector; `None` where the name is taken.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn new_detector(
        &self,
        name: &str,
        by: Option<&str>,
    ) -> Result<Option<DetectorRow>, StoreError> {
        self.write(|t| {
            let made = t.execute(
                "INSERT INTO detectors(name, created) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
                params![name, now()],
            )?;
            if made == 0 {
                return Ok(None);
            }
            let id = t.last_insert_rowid();
            super::people::note(t, by, "detector made", name)?;
            Ok(Some(DetectorRow {
                id,
                name: name.to_owned(),
                current: None,
            }))
        })
    }

    /// Forgets a detector and all that belongs to it.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn remove_detector(
        &self,
        detector: &DetectorRow,
        by: Option<&str>,
    ) -> Result<(), StoreError> {
        self.write(|t| {
            // judgements name parts: they go first
            t.execute("DELETE FROM judgements WHERE detector = ?1", [detector.id])?;
            t.execute("DELETE FROM detectors WHERE id = ?1", [detector.id])?;
            super::people::note(t, by, "detector removed", &detector.name)
        })
    }

    /// Remembers an image that lies on disk.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn remember_image(
        &self,
        content: &str,
        kind: &str,
        size: (usize, usize),
    ) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute(
                "INSERT INTO images(content, kind, height, width, added) VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![content, kind, size.0 as i64, size.1 as i64, now()],
            )
            .map(drop)
        })
    }

    /// The extension of a remembered image.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn image_kind(&self, content: &str) -> Result<Option<String>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT kind FROM images WHERE content = ?1")?
                .query_row([content], |row| row.get(0))
                .optional()
        })
    }

    /// Height and width of a remembered image, in pixels.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn image_size(&self, content: &str) -> Result<Option<(usize, usize)>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT height, width FROM images WHERE content = ?1")?
                .query_row([content], |row| {
                    Ok((
                        row.get::<_, i64>(0)? as usize,
                        row.get::<_, i64>(1)? as usize,
                    ))
                })
                .optional()
        })
    }

    /// Adds good images (content and name) to a detector; returns how many it did not have.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn add_good(
        &self,
        detector: i64,
        images: &[(String, String)],
    ) -> Result<usize, StoreError> {
        self.write(|t| {
            let mut insert = t.prepare_cached(
                "INSERT INTO good(detector, content, name, added) VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?;
            let mut added = 0;
            for (content, name) in images {
                added += insert.execute(params![detector, content, name, now()])?;
            }
            Ok(added)
        })
    }

    /// The good images of a detector, in the order of their names.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn good(&self, detector: i64) -> Result<Vec<GoodImage>, StoreError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT g.content, i.kind, g.name, g.excluded FROM good g JOIN images i USING(content)
                 WHERE detector = ?1 ORDER BY g.name, g.content",
            )?
            .query_map([detector], |row| {
                Ok(GoodImage {
                    content: row.get(0)?,
                    kind: row.get(1)?,
                    name: row.get(2)?,
                    excluded: row.get(3)?,
                })
            })?
            .collect()
        })
    }

    /// Leaves a good image out, or takes it in again; whether there is such an image.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn exclude(
        &self,
        detector: &DetectorRow,
        content: &str,
        excluded: bool,
        by: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.write(|t| {
            let changed = t.execute(
                "UPDATE good SET excluded = ?3 WHERE detector = ?1 AND content = ?2",
                params![detector.id, content, excluded],
            )?;
            let what = if excluded {
                "good image left out"
            } else {
                "good image taken in"
            };
            super::people::note(t, by, what, &format!("{}: {content}", detector.name))?;
            Ok(changed > 0)
        })
    }
}
