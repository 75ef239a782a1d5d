//! Every layout beyond MVTec AD, drawn small, and what is wrong with broken ones.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use flawtune::dataset::{
    Dataset, DatasetError, Folders, Layout, Source, Subset, VisaSplit, categories, parse_list,
    read_mask,
};
use flawtune_backbone::preprocess::DecodeOptions;
use image::{GrayImage, Luma};

/// A tiny image; `value` in its middle, black around, so that 0 is a black mask.
fn draw(root: &Path, names: &[&str], value: u8) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(4, 4, |x, y| {
            Luma([if x == 1 && y == 2 { value } else { 0 }])
        })
        .save(path)
        .unwrap();
    }
}

fn write(root: &Path, name: &str, text: &str) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// One line a sample: id, subset, type, masks relative to `root`.
fn lines(dataset: &Dataset, root: &Path) -> Vec<String> {
    let line = |s: &flawtune::dataset::Sample| {
        assert!(s.path.is_file(), "{}", s.path.display());
        let masks: Vec<String> = s
            .masks
            .iter()
            .map(|m| {
                m.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/")
            })
            .collect();
        let subset = if s.subset == Subset::Train {
            "train"
        } else {
            "test"
        };
        format!(
            "{} {subset} {} {}",
            s.id,
            s.defect_type.as_deref().unwrap_or("good"),
            masks.join(",")
        )
        .trim_end()
        .to_owned()
    };
    dataset.samples.iter().map(line).collect()
}

fn open(root: &Path, category: &str) -> Result<Dataset, DatasetError> {
    Dataset::open(&Source::root(root), category, true)
}

fn with_layout(root: &Path, category: &str, layout: Layout) -> Result<Dataset, DatasetError> {
    let source = Source::Root {
        root: root.into(),
        layout,
        visa_split: VisaSplit::default(),
    };
    Dataset::open(&source, category, true)
}

#[track_caller]
fn says(result: Result<Dataset, DatasetError>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn mvtec_ad_2_takes_validation_for_training_and_the_public_test() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &[
            "can/train/good/000_regular.png",
            "can/validation/good/001_regular.png",
            "can/test_public/good/000_regular.png",
            "can/test_public/bad/000_regular.png",
            "can/test_public/bad/000_overexposed.png",
            "can/test_public/ground_truth/bad/000_regular_mask.png",
            "can/test_private/000_regular.png",
            "can/test_private_mixed/000_mixed.png",
        ],
        9,
    );
    assert_eq!(
        lines(&open(root.path(), "can").unwrap(), root.path()),
        [
            "test_public/bad/000_overexposed.png test bad",
            "test_public/bad/000_regular.png test bad can/test_public/ground_truth/bad/000_regular_mask.png",
            "test_public/good/000_regular.png test good",
            "train/good/000_regular.png train good",
            "validation/good/001_regular.png train good",
        ]
    );
}

#[test]
fn mvtec_loco_joins_the_masks_of_a_picture() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &[
            "box/train/good/000.png",
            "box/validation/good/000.png",
            "box/test/good/000.png",
            "box/test/logical_anomalies/000.png",
            "box/test/structural_anomalies/000.png",
            "box/ground_truth/structural_anomalies/000/000.png",
        ],
        9,
    );
    let truth = root.path().join("box/ground_truth/logical_anomalies/000");
    fs::create_dir_all(&truth).unwrap();
    // the pixels' value is the kind of the anomaly
    GrayImage::from_fn(4, 1, |x, _| Luma([if x == 0 { 241 } else { 0 }]))
        .save(truth.join("000.png"))
        .unwrap();
    GrayImage::from_fn(4, 1, |x, _| Luma([u8::from(x == 3)]))
        .save(truth.join("001.png"))
        .unwrap();
    let dataset = open(root.path(), "box").unwrap();
    assert_eq!(
        lines(&dataset, &root.path().join("box/ground_truth")),
        [
            "test/good/000.png test good",
            "test/logical_anomalies/000.png test logical_anomalies \
             logical_anomalies/000/000.png,logical_anomalies/000/001.png",
            "test/structural_anomalies/000.png test structural_anomalies structural_anomalies/000/000.png",
            "train/good/000.png train good",
            "validation/good/000.png train good",
        ]
    );
    let sample = &dataset.samples[1];
    let options = DecodeOptions::default();
    let mask = read_mask(&sample.path, &sample.masks, (1, 4), &options).unwrap();
    assert_eq!(mask, [1, 0, 0, 1]);
}

#[test]
fn btad_calls_good_ok() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &[
            "01/train/ok/0000.bmp",
            "01/test/ok/0000.bmp",
            "01/test/ko/0000.bmp",
            "01/test/ko/0001.png",
            "01/ground_truth/ko/0000.png",
            "01/ground_truth/ko/0001.bmp",
        ],
        9,
    );
    assert_eq!(
        lines(&open(root.path(), "01").unwrap(), root.path()),
        [
            "test/ko/0000.bmp test ko 01/ground_truth/ko/0000.png",
            "test/ko/0001.png test ko 01/ground_truth/ko/0001.bmp",
            "test/ok/0000.bmp test good",
            "train/ok/0000.bmp train good",
        ]
    );
}

/// Two objects, and the three split files.
fn visa() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for object in ["candle", "pcb1"] {
        let names = [
            "Images/Normal/0000.JPG",
            "Images/Normal/0001.JPG",
            "Images/Anomaly/000.JPG",
        ];
        for name in names
            .iter()
            .chain(&["Images/Anomaly/001.JPG", "Masks/Anomaly/000.png"])
        {
            draw(root.path(), &[&format!("{object}/Data/{name}")], 9);
        }
    }
    let split = |anomaly: &str| {
        format!(
            "object,split,label,image,mask\n\
             candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n\
             pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,\n\
             candle,test,normal,candle/Data/Images/Normal/0001.JPG,\n\
             candle,{anomaly},anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n\
             candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,\n"
        )
    };
    write(root.path(), "split_csv/1cls.csv", &split("test"));
    write(root.path(), "split_csv/2cls_fewshot.csv", &split("train"));
    root
}

fn visa_source(root: &Path, visa_split: VisaSplit) -> Source {
    Source::Root {
        root: root.into(),
        layout: Layout::Auto,
        visa_split,
    }
}

#[test]
fn visa_follows_its_split_files() {
    let root = visa();
    assert_eq!(
        lines(&open(root.path(), "candle").unwrap(), root.path()),
        [
            "Data/Images/Anomaly/000.JPG test anomaly candle/Data/Masks/Anomaly/000.png",
            "Data/Images/Anomaly/001.JPG test anomaly",
            "Data/Images/Normal/0000.JPG train good",
            "Data/Images/Normal/0001.JPG test good",
        ]
    );
    let few = Dataset::open(
        &visa_source(root.path(), VisaSplit::FewShot),
        "candle",
        true,
    )
    .unwrap();
    assert!(lines(&few, root.path())[0].starts_with("Data/Images/Anomaly/000.JPG train anomaly "));
    assert_eq!(
        (few.train_good().count(), few.test_defects().count()),
        (1, 1)
    );
    let high = Dataset::open(
        &visa_source(root.path(), VisaSplit::HighShot),
        "candle",
        true,
    );
    says(high, &["2cls_highshot.csv", "cannot read"]);
    assert_eq!(categories(root.path()).unwrap(), ["candle", "pcb1"]);
}

#[test]
fn wrong_rows_of_visa_are_named() {
    let root = visa();
    let header = "object,split,label,image,mask\n";
    let image = "candle/Data/Images/Anomaly/000.JPG";
    let try_with = |text: String| {
        write(root.path(), "split_csv/1cls.csv", &text);
        open(root.path(), "candle")
    };
    let split = |rest: &str| try_with(format!("{header}candle,{rest}\n"));
    says(
        split(&format!("val,normal,{image},")),
        &["1cls.csv, line 2", "'val'", "train or test"],
    );
    says(split(&format!("test,bad,{image},")), &["line 2", "'bad'"]);
    says(
        split(&format!("test,anomaly,{image},candle/none.png")),
        &["line 2", "none.png", "no such file"],
    );
    says(
        split("test,normal,candle/none.JPG,"),
        &["line 2", "none.JPG"],
    );
    says(
        split(&format!(
            "test,normal,{image},\ncandle,test,normal,{image},"
        )),
        &["listed twice", "000.JPG"],
    );
    says(
        try_with(format!(
            "object,split,label,image\ncandle,test,normal,{image}\n"
        )),
        &["line 1", "'mask'"],
    );
    says(
        try_with(format!("{header}pcb1,test,normal,{image},\n")),
        &["'candle'"],
    );
}

#[test]
fn kolektor_sdd_divides_items_and_looks_into_labels() {
    let root = tempfile::tempdir().unwrap();
    for item in 1..=3 {
        for part in 0..2 {
            draw(
                root.path(),
                &[&format!("ksdd/kos0{item}/Part{part}.jpg")],
                9,
            );
            // a defect in an item of each half
            let label = if (item, part) == (1, 1) || (item, part) == (3, 0) {
                255
            } else {
                0
            };
            draw(
                root.path(),
                &[&format!("ksdd/kos0{item}/Part{part}_label.bmp")],
                label,
            );
        }
    }
    assert_eq!(
        lines(
            &open(root.path(), "ksdd").unwrap(),
            &root.path().join("ksdd")
        ),
        [
            "kos01/Part0.jpg train good",
            "kos01/Part1.jpg test defect kos01/Part1_label.bmp",
            "kos02/Part0.jpg train good",
            "kos02/Part1.jpg train good",
            "kos03/Part0.jpg test defect kos03/Part0_label.bmp",
            "kos03/Part1.jpg test good",
        ]
    );
    fs::write(root.path().join("ksdd/kos02/Part0_label.bmp"), "no image").unwrap();
    says(open(root.path(), "ksdd"), &["Part0_label.bmp"]);
    fs::remove_file(root.path().join("ksdd/kos02/Part0_label.bmp")).unwrap();
    says(
        with_layout(root.path(), "ksdd", Layout::KolektorSdd),
        &["kos02", "Part0.jpg", "Part0_label"],
    );
}

#[test]
fn kolektor_sdd2_has_defects_to_learn_from() {
    let root = tempfile::tempdir().unwrap();
    for (name, label) in [
        ("train/10301", 0),
        ("train/10302", 255),
        ("test/20000", 0),
        ("test/20001", 1),
    ] {
        draw(root.path(), &[&format!("ksdd2/{name}.png")], 9);
        draw(root.path(), &[&format!("ksdd2/{name}_GT.png")], label);
    }
    assert_eq!(
        lines(
            &open(root.path(), "ksdd2").unwrap(),
            &root.path().join("ksdd2")
        ),
        [
            "test/20000.png test good",
            "test/20001.png test defect test/20001_GT.png",
            "train/10301.png train good",
            "train/10302.png train defect train/10302_GT.png",
        ]
    );
    // the root as the category itself
    let (source, name) = Source::root_as_category(
        &root.path().join("ksdd2"),
        Layout::Auto,
        VisaSplit::default(),
    )
    .unwrap();
    assert_eq!(name, "ksdd2");
    assert_eq!(
        Dataset::open(&source, &name, true).unwrap().samples.len(),
        4
    );
    fs::remove_dir_all(root.path().join("ksdd2/test")).unwrap();
    says(open(root.path(), "ksdd2"), &["test", "no images"]);
}

#[test]
fn a_layout_is_recognised_or_the_doubt_is_named() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &[
            "bolt/train/good/0.png",
            "bolt/test/good/0.png",
            "bolt/test/crack/0.png",
        ],
        9,
    );
    assert_eq!(
        open(root.path(), "bolt").unwrap(),
        Dataset::mvtec(root.path(), "bolt").unwrap()
    );
    draw(root.path(), &["heap/0.png"], 9);
    says(
        open(root.path(), "heap"),
        &[
            "heap",
            "train/good",
            "train/ok",
            "Data/Images",
            "`layout`",
            "`good`",
        ],
    );
    // the folder of the categories in place of one
    let (source, name) =
        Source::root_as_category(root.path(), Layout::Auto, VisaSplit::default()).unwrap();
    says(
        Dataset::open(&source, &name, false),
        &["categories bolt (", "`category`"],
    );
    draw(
        root.path(),
        &["bolt/train/ok/0.png", "bolt/test/ok/1.png"],
        9,
    );
    says(
        open(root.path(), "bolt"),
        &["train/good (mvtec-ad) and train/ok (btad)", "`layout`"],
    );
    let as_btad = with_layout(root.path(), "bolt", Layout::Btad).unwrap();
    assert_eq!(as_btad.test_defects().count(), 2);
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse::<Layout>(), Ok(layout));
    }
    assert!(
        "mvtec"
            .parse::<Layout>()
            .unwrap_err()
            .contains("mvtec-ad, mvtec-ad-2")
    );
    for split in VisaSplit::ALL {
        assert_eq!(split.name().parse::<VisaSplit>(), Ok(split));
    }
}

#[test]
fn without_need_of_a_test_good_pictures_are_enough() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &["bolt/train/good/0.png", "nut/train/ok/0.png"],
        9,
    );
    for category in ["bolt", "nut"] {
        assert_eq!(
            Dataset::open(&Source::root(root.path()), category, false)
                .unwrap()
                .samples
                .len(),
            1
        );
        says(
            open(root.path(), category),
            &[
                "no test images",
                if category == "nut" { "ok" } else { "good" },
            ],
        );
    }
}

/// Ten good images in two folders, three defects and two masks.
fn folders() -> (tempfile::TempDir, Folders) {
    let root = tempfile::tempdir().unwrap();
    for i in 0..10 {
        draw(root.path(), &[&format!("good/day{}/{i}.png", i % 2)], 9);
    }
    draw(
        root.path(),
        &["bad/crack/a.png", "bad/crack/b.png", "bad/c.png"],
        9,
    );
    draw(root.path(), &["truth/crack/a_mask.png", "truth/c/0.png"], 9);
    let given = Folders {
        good: root.path().join("good"),
        test_good: None,
        defect: Some(root.path().join("bad")),
        masks: Some(root.path().join("truth")),
    };
    (root, given)
}

fn read_folders(given: &Folders) -> Result<Dataset, DatasetError> {
    Dataset::open(&Source::Folders(given.clone()), "part", true)
}

#[test]
fn folders_give_types_masks_and_a_fifth_of_the_good_to_the_test() {
    let (root, mut given) = folders();
    let dataset = read_folders(&given).unwrap();
    assert_eq!(
        lines(&dataset, root.path())[..3],
        [
            "defect/c.png test defect truth/c/0.png",
            "defect/crack/a.png test crack truth/crack/a_mask.png",
            "defect/crack/b.png test crack",
        ]
    );
    assert_eq!(
        (dataset.train_good().count(), dataset.test_good().count()),
        (8, 2)
    );
    assert!(dataset.train_good().all(|s| s.id.starts_with("good/day")));
    assert_eq!(dataset, read_folders(&given).unwrap());
    assert_eq!(
        Source::Folders(given.clone()).default_category().unwrap(),
        "good"
    );

    draw(root.path(), &["fine/0.png"], 9);
    given.test_good = Some(root.path().join("fine"));
    let dataset = read_folders(&given).unwrap();
    assert_eq!(dataset.train_good().count(), 10);
    assert_eq!(
        dataset
            .test_good()
            .map(|s| s.id.as_str())
            .collect::<Vec<_>>(),
        ["test_good/0.png"]
    );
}

#[test]
fn good_pictures_alone_are_all_learned_from() {
    let (_root, given) = folders();
    let alone = Source::Folders(Folders {
        defect: None,
        masks: None,
        ..given
    });
    let dataset = Dataset::open(&alone, "part", false).unwrap();
    assert_eq!(
        (dataset.train_good().count(), dataset.test().count()),
        (10, 0)
    );
    says(
        Dataset::open(&alone, "part", true),
        &["no defects", "`defect`", "fit"],
    );
    says(Dataset::open(&alone, "a/b", false), &["'a/b'"]);
}

#[test]
fn folders_that_cannot_be_meant_are_refused() {
    let (root, given) = folders();
    let at = |name: &str| root.path().join(name);
    says(
        read_folders(&Folders {
            good: at("none"),
            ..given.clone()
        }),
        &["none", "no such folder"],
    );
    says(
        read_folders(&Folders {
            good: at("bad/c.png"),
            ..given.clone()
        }),
        &["c.png", "no such folder"],
    );
    says(
        read_folders(&Folders {
            good: root.path().into(),
            ..given.clone()
        }),
        &["one lies in the other"],
    );
    says(
        read_folders(&Folders {
            masks: Some(at("bad")),
            ..given.clone()
        }),
        &["one lies in the other"],
    );
    fs::create_dir(at("empty")).unwrap();
    says(
        read_folders(&Folders {
            defect: Some(at("empty")),
            ..given.clone()
        }),
        &["empty", "no images"],
    );
    says(
        read_folders(&Folders {
            masks: Some(at("empty")),
            ..given.clone()
        }),
        &["no mask", "c.png"],
    );
    draw(root.path(), &["bad/crack/a.bmp"], 9);
    says(read_folders(&given), &["a.bmp", "a.png"]);
}

fn read_list(file: &Path) -> Result<Dataset, DatasetError> {
    Dataset::open(&Source::List(file.into()), "part", true)
}

#[test]
fn a_list_says_everything() {
    let root = tempfile::tempdir().unwrap();
    draw(
        root.path(),
        &[
            "a/0.png",
            "a/1.png",
            "a/2.png",
            "a/3, old.png",
            "a/4.png",
            "m/3.png",
            "m/3b.png",
        ],
        9,
    );
    // with the mark that spreadsheets put in front
    let text = "\u{feff}Label, path,split,masks,type\n\
                good,a/0.png,train,,\n\
                0,./a/1.png,test,,\n\
                1,a/2.png,train,,\n\
                defect,\"a/3, old.png\",test,m/3b.png; m/3.png,crack\n\
                defect,a/4.png,test,,bent\n";
    let file = write(root.path(), "parts.csv", text);
    assert_eq!(
        lines(&read_list(&file).unwrap(), root.path()),
        [
            "a/0.png train good",
            "a/1.png test good",
            "a/2.png train defect",
            "a/3, old.png test crack m/3.png,m/3b.png",
            "a/4.png test bent",
        ]
    );
    assert_eq!(Source::List(file).default_category().unwrap(), "parts");
}

#[test]
fn a_list_without_splits_is_split() {
    let root = tempfile::tempdir().unwrap();
    let mut text = "path,label\n".to_owned();
    for i in 0..6 {
        draw(root.path(), &[&format!("{i}.png")], 9);
        writeln!(text, "{i}.png,{}", usize::from(i == 5)).unwrap();
    }
    let file = write(root.path(), "list.csv", &text);
    let dataset = read_list(&file).unwrap();
    assert_eq!(
        (dataset.train_good().count(), dataset.test_good().count()),
        (4, 1)
    );
    assert_eq!(dataset.test_defects().count(), 1);
    let good_only = write(
        root.path(),
        "good.csv",
        "path,label\n0.png,good\n1.png,good\n",
    );
    let source = Source::List(good_only.clone());
    assert_eq!(
        Dataset::open(&source, "part", false)
            .unwrap()
            .train_good()
            .count(),
        2
    );
    says(read_list(&good_only), &["good.csv", "no defects"]);
    let no_good = write(root.path(), "bad.csv", "path,label\n0.png,defect\n");
    says(read_list(&no_good), &["bad.csv", "no good image"]);
    says(
        read_list(&root.path().join("none.csv")),
        &["none.csv", "cannot read"],
    );
}

#[test]
fn wrong_lists_name_the_line() {
    let root = tempfile::tempdir().unwrap();
    draw(root.path(), &["0.png", "1.png"], 9);
    let cases: [(&str, &[&str]); 16] = [
        ("", &["line 1", "'path' is missing"]),
        (
            "path,split\n0.png,train\n",
            &[
                "line 1",
                "'label' is missing",
                "path, label, split, type, masks",
            ],
        ),
        (
            "path;label\n0.png;good\n",
            &["line 1", "'path;label'", "commas"],
        ),
        ("path,label,mask\n0.png,good,\n", &["line 1", "'mask'"]),
        ("path,label,label\n0.png,good,good\n", &["line 1", "twice"]),
        (
            "path,label\n0.png,good\n1.png\n",
            &["line 3", "1 cells", "2"],
        ),
        (
            "path,label\n0.png,fine\n",
            &["line 2", "'fine'", "good or defect"],
        ),
        (
            "path,label,split\n0.png,good,val\n",
            &["line 2", "'val'", "train or test"],
        ),
        ("path,label,split\n0.png,good,\n", &["line 2", "''"]),
        (
            "path,label,type\n0.png,good,crack\n",
            &["line 2", "neither type nor masks"],
        ),
        (
            "path,label,type\n0.png,defect,good\n",
            &["line 2", "'good'"],
        ),
        (
            "path,label\n\n0.png,good\n\r\n\nnone.png,good\n",
            &["line 6", "none.png", "no such file"],
        ),
        (
            "path,label\nlist.txt,good\n",
            &["line 2", "'list.txt' is not an image"],
        ),
        (
            "path,label,masks\n0.png,good,\n1.png,defect,0.png;none.png\n",
            &["line 3", "none.png"],
        ),
        (
            "path,label\n0.png,good\n./0.png,good\n",
            &["line 3", "on line 2 already"],
        ),
        ("path,label\n,good\n", &["line 2", "not an image"]),
    ];
    for (text, parts) in cases {
        let file = write(root.path(), "list.csv", text);
        says(read_list(&file), &[parts, &["list.csv"]].concat());
    }
    let error = parse_list(b"path,label\n\xff.png,good\n").unwrap_err();
    assert_eq!((error.line, error.problem.contains("UTF-8")), (2, true));
    assert_eq!(parse_list(b"\n\npath\n").unwrap_err().line, 3);
}

proptest::proptest! {
    /// As the fuzz target has it, on texts that are nearly lists.
    #[test]
    fn whatever_is_listed_there_is_a_row_or_a_line(
        header in "(path,label|label,path,split|path,label,type,masks)",
        cells in proptest::collection::vec("(a.png|good|defect|0|1|train|test|;|\"|,|\n|\r\n| |é|\0)", 0..40),
    ) {
        let text = format!("{header}\n{}", cells.concat());
        let lines = 1 + text.bytes().filter(|b| matches!(b, b'\n' | b'\r')).count() as u64;
        match parse_list(text.as_bytes()) {
            Ok(rows) => for row in rows {
                proptest::prop_assert!((1..=lines).contains(&row.line));
                proptest::prop_assert!(row.defect_type.is_some() || row.masks.is_empty());
            },
            Err(error) => proptest::prop_assert!((1..=lines).contains(&error.line), "{}", error),
        }
    }
}
