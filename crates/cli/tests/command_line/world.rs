//! A folder with everything a run needs: a data set, a cache and an output folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flawtune_testing::SmallNoise;
use image::{Rgb, RgbImage};
use serde_json::Value as Json;

pub(crate) const CATEGORY: &str = "cloth";
pub(crate) const DEFECT_TYPES: [&str; 2] = ["hole", "stain"];
pub(crate) const TRAIN_GOOD: u32 = 8;
pub(crate) const TEST_GOOD: u32 = 6;
pub(crate) const TEST_PER_TYPE: u32 = 7;
const SIDE: u32 = 64;

pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// A wrong input: exit code 2, nothing on standard output, one message, which says each of `parts`.
    #[track_caller]
    pub(crate) fn refuses(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert_eq!(self.stderr.matches("error: ").count(), 1, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "'{part}' is not in {}",
                self.stderr
            );
        }
        self
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Images extracted by the forward pass, from the notes.
    pub(crate) fn extracted(&self) -> usize {
        let counts = self
            .stderr
            .lines()
            .filter_map(|line| line.split("from the cache, ").nth(1));
        counts
            .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
            .sum()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let category = world.root().join(CATEGORY);
        for (folder, count, defect) in [
            ("train/good", TRAIN_GOOD, None),
            ("test/good", TEST_GOOD, None),
            ("test/hole", TEST_PER_TYPE, Some(0)),
            ("test/stain", TEST_PER_TYPE, Some(1)),
        ] {
            fs::create_dir_all(category.join(folder)).unwrap();
            for i in 0..count {
                let seed = i + 1000 * folder.len() as u32;
                picture(seed, defect)
                    .save(category.join(folder).join(format!("{i:03}.png")))
                    .unwrap();
            }
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ground-truth masks of all defects: a corner of the image.
    pub(crate) fn add_masks(&self) {
        for kind in DEFECT_TYPES {
            let masks = self.root().join(CATEGORY).join("ground_truth").join(kind);
            fs::create_dir_all(&masks).unwrap();
            for picture in fs::read_dir(self.root().join(CATEGORY).join("test").join(kind)).unwrap()
            {
                let stem = picture
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                let mask = image::GrayImage::from_fn(32, 32, |x, y| {
                    image::Luma([u8::from(x < 9 && y < 9)])
                });
                mask.save(masks.join(format!("{stem}_mask.png"))).unwrap();
            }
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// An image of the data set, by its path under the category.
    pub(crate) fn sample(&self, id: &str) -> PathBuf {
        self.root().join(CATEGORY).join(id)
    }

    /// A command with the arguments of `line`, split at spaces; `{}` stands for this world's folder.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flawtune"));
        let folder = self.folder.path().to_str().unwrap();
        command.args(line.split_whitespace().map(|a| a.replace("{}", folder)));
        command.current_dir(self.folder.path());
        command.stdin(Stdio::null());
        // nothing of the machine the tests run on
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let ours = ours.filter(|name| name.starts_with("FLAWTUNE_"));
        for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE"]
            .map(str::to_owned)
            .into_iter()
            .chain(ours)
        {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("home/cache"));
        command
            .env("HF_HOME", self.path("home/hf"))
            .env("HF_HUB_OFFLINE", "1");
        command.env("FLAWTUNE_CACHE_DIR", self.path("cache"));
        command
    }

    pub(crate) fn run(&self, line: &str) -> Run {
        Run::new(self.command(line).output().unwrap())
    }

    /// `command --category … --root-dir …` with the tiny backbone, then `rest`.
    pub(crate) fn job_line(command: &str, rest: &str) -> String {
        format!("{command} {} {rest}", data_and_backbone())
    }

    pub(crate) fn job(&self, command: &str, rest: &str) -> Run {
        self.run(&Self::job_line(command, rest))
    }

    /// Trains for a few epochs into `{}/out` and returns the checkpoint.
    pub(crate) fn trained(&self, rest: &str) -> PathBuf {
        self.job(
            "train",
            &format!("--num-epochs 2 --num-prompts 3 --output-dir {{}}/out {rest}"),
        )
        .succeeds();
        self.out().join(format!("{CATEGORY}_prompts.pt"))
    }

    /// Files in the output folder, none if there is no such folder. The record of the runs is not among them: it has tests
    /// of its own.
    pub(crate) fn written(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.out()) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != "run.json");
        names.sort();
        names
    }
}

pub(crate) fn data_and_backbone() -> String {
    format!(
        "--category {CATEGORY} --root-dir {{}}/data --weights {} --image-size 64",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    )
}

/// A world with drawn categories: their images differ, so that none of one is a training image of another.
pub(crate) fn drawn() -> World {
    let w = World::new();
    w.run("synth --output-dir {}/drawn --size 64 --train-good 10 --test-good 6 --test-per-type 4 --quiet")
        .succeeds();
    w
}

pub(crate) fn drawn_and_backbone() -> String {
    format!(
        "--root-dir {{}}/drawn --weights {} --image-size 64",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    )
}

pub(crate) fn golden(name: &str) -> PathBuf {
    flawtune_testing::golden("")
        .canonicalize()
        .unwrap()
        .join(name)
}

pub(crate) fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Woven noise; with a dark hole or a bright stain where a defect is wanted.
fn picture(seed: u32, defect: Option<u32>) -> RgbImage {
    let mut small = SmallNoise(seed.wrapping_mul(2_654_435_761).wrapping_add(1));
    let mut noise = move || (small.word() >> 24) as i32 % 32;
    let at = (12 + seed % 7 * 5, 12 + seed % 5 * 8);
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let weave = if (x / 4 + y / 4) % 2 == 0 { 40 } else { 0 };
        let mut grey = 90 + weave + noise();
        if x.abs_diff(at.0) < 7 && y.abs_diff(at.1) < 7 {
            match defect {
                Some(0) => grey /= 6,
                Some(_) => grey = 255 - grey / 6,
                None => {}
            }
        }
        let v = grey.clamp(0, 255) as u8;
        Rgb([v, v.saturating_sub(10), v / 2 + 40])
    })
}

/// CRC-32 as PNG and zip have it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
        crc
    })
}

/// A zip archive of one uncompressed entry.
pub(crate) fn stored_zip(name: &str, data: &[u8]) -> Vec<u8> {
    let (crc, size) = (crc32(data).to_le_bytes(), (data.len() as u32).to_le_bytes());
    // version 2.0, no flags, stored, no time; then the sizes, and no extra field
    let mut shared = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    for part in [crc, size, size] {
        shared.extend(part);
    }
    shared.extend((name.len() as u16).to_le_bytes());
    shared.extend([0, 0]);
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(&shared);
    zip.extend(name.as_bytes());
    zip.extend(data);
    let directory = zip.len() as u32;
    zip.extend(b"PK\x01\x02\x14\0");
    zip.extend(&shared);
    // no comment, disk 0, no attributes, and the entry is at 0
    zip.extend([0; 14]);
    zip.extend(name.as_bytes());
    let length = zip.len() as u32 - directory;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend(length.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend([0, 0]);
    zip
}
