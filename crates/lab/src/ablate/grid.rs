//! The settings of a study: axes, the points where they cross, and a plan from a TOML file.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AblateError;

/// The longest readable part of a folder's name, in characters; longer ones end in a hash.
const LONGEST_NAME: usize = 96;

/// An option by its long name without dashes, and its value as it would be typed; `true` and `false` for a switch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// `num-prompts`.
    pub name: String,
    /// `10`.
    pub value: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    /// `num-prompts=10`; dashes in front of the name are forgiven.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = split(text)?;
        Ok(Self {
            name,
            value: value.to_owned(),
        })
    }
}

/// An option and the values it takes in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// Long name of the option, without dashes.
    pub name: String,
    /// Its values, in the order of the tables and plots.
    pub values: Vec<String>,
}

impl FromStr for Axis {
    type Err = String;

    /// `num-prompts=5,10,20`. A value that holds a comma itself can be given in a plan file only.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = split(text)?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        Self { name, values }.checked()
    }
}

impl Axis {
    fn checked(self) -> Result<Self, String> {
        let name = &self.name;
        if self.values.is_empty() || self.values.iter().any(String::is_empty) {
            return Err(format!(
                "{name}: an empty value\nhint: write {name}=VALUE,VALUE"
            ));
        }
        for (i, value) in self.values.iter().enumerate() {
            if self.values[..i].contains(value) {
                return Err(format!("{name}: the value {value} stands there twice"));
            }
        }
        Ok(self)
    }
}

fn split(text: &str) -> Result<(String, &str), String> {
    let wrong = || format!("{text:?}\nhint: write NAME=VALUE, such as num-prompts=10");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let name = name.trim().trim_start_matches('-');
    if name.is_empty() {
        Err(wrong())
    } else {
        Ok((name.to_owned(), value.trim()))
    }
}

/// Settings on one line.
pub(super) fn joined<'a>(settings: impl IntoIterator<Item = &'a Setting>, between: &str) -> String {
    settings
        .into_iter()
        .map(Setting::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

/// Every combination of the axes' values; the last axis changes fastest. No axes give one point without settings.
///
/// # Errors
/// [`AblateError::Plan`]: two axes of one name.
pub fn points(axes: &[Axis]) -> Result<Vec<Vec<Setting>>, AblateError> {
    let mut found = vec![Vec::new()];
    for (i, axis) in axes.iter().enumerate() {
        if axes[..i].iter().any(|a| a.name == axis.name) {
            return Err(AblateError::Plan(format!(
                "the grid names {} twice",
                axis.name
            )));
        }
        found = found
            .iter()
            .flat_map(|point: &Vec<Setting>| {
                axis.values.iter().map(|value| {
                    let mut point = point.clone();
                    point.push(Setting {
                        name: axis.name.clone(),
                        value: value.clone(),
                    });
                    point
                })
            })
            .collect();
    }
    Ok(found)
}

/// A folder's name for a point: `num-prompts=5,loss-type=ranking`, `all-defaults` without settings. Different points have
/// different names.
pub(super) fn folder_name(point: &[Setting]) -> String {
    if point.is_empty() {
        return "all-defaults".to_owned();
    }
    let exact = joined(point, ",");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._=,+-".contains(c);
    if exact.len() <= LONGEST_NAME && exact.chars().all(plain) {
        return exact;
    }
    let readable: String = exact
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(LONGEST_NAME - 17)
        .collect();
    format!(
        "{readable}~{}",
        &blake3::hash(exact.as_bytes()).to_hex()[..16]
    )
}

/// A study as a TOML file describes it.
///
/// ```toml
/// categories = ["screw", "pill"]
/// seeds = 5                    # seeds 0 to 4; or a list: [0, 7]
///
/// [options]                    # the same for every run
/// image-size = 224
/// use-cls = true
///
/// [grid]                       # every combination
/// num-defect-samples = [1, 5, 10]
/// layers = [[8], [8, 11]]
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Categories; empty: not said.
    pub categories: Vec<String>,
    /// Seeds; empty: not said.
    pub seeds: Vec<u64>,
    /// Options of every run.
    pub options: Vec<Setting>,
    /// The grid.
    pub grid: Vec<Axis>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    #[serde(default)]
    categories: Vec<String>,
    seeds: Option<Seeds>,
    #[serde(default)]
    options: toml::Table,
    #[serde(default)]
    grid: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Seeds {
    Count(u32),
    List(Vec<u64>),
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`AblateError::Io`], and [`AblateError::Plan`] for a text that is not a plan, with file and line.
    pub fn read(path: &Path) -> Result<Self, AblateError> {
        let text = std::fs::read_to_string(path).map_err(|source| AblateError::Io {
            path: path.to_owned(),
            source,
            hint: "name a plan that can be read, as UTF-8, with `plan`",
        })?;
        Self::parse(&text).map_err(|e| AblateError::Plan(format!("{}: {e}", path.display())))
    }

    /// Parses a plan.
    ///
    /// # Errors
    /// A text that says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: PlanFile =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let setting = |(name, value): (&String, &toml::Value)| {
            let value =
                typed(value).ok_or_else(|| format!("options.{name}: a table is not a value"))?;
            Ok(Setting {
                name: name.clone(),
                value,
            })
        };
        let axis = |(name, values): (&String, &toml::Value)| {
            let toml::Value::Array(values) = values else {
                return Err(format!(
                    "grid.{name}: a list of values is needed, such as {name} = [1, 5]"
                ));
            };
            let values: Option<Vec<String>> = values.iter().map(typed).collect();
            let values = values.ok_or_else(|| format!("grid.{name}: a table is not a value"))?;
            Axis {
                name: name.clone(),
                values,
            }
            .checked()
            .map_err(|e| format!("grid.{e}"))
        };
        Ok(Self {
            categories: file.categories,
            seeds: match file.seeds {
                None => Vec::new(),
                Some(Seeds::Count(0)) => {
                    return Err("seeds = 0: at least one seed is needed".into());
                }
                Some(Seeds::Count(n)) => (0..u64::from(n)).collect(),
                Some(Seeds::List(list)) => list,
            },
            options: file
                .options
                .iter()
                .map(setting)
                .collect::<Result<_, String>>()?,
            grid: file.grid.iter().map(axis).collect::<Result<_, String>>()?,
        })
    }
}

/// A value as it would be typed; a list joined by commas.
fn typed(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Array(list) => Some(
            list.iter()
                .map(typed)
                .collect::<Option<Vec<_>>>()?
                .join(","),
        ),
        toml::Value::Table(_) => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_cross_the_axes_the_last_fastest() {
        let axes: Vec<Axis> = ["--num-prompts=5, 10", "loss-type=ranking,logistic"]
            .map(|a| a.parse().unwrap())
            .into();
        let names: Vec<String> = points(&axes)
            .unwrap()
            .iter()
            .map(|p| folder_name(p))
            .collect();
        assert_eq!(
            names,
            [
                "num-prompts=5,loss-type=ranking",
                "num-prompts=5,loss-type=logistic",
                "num-prompts=10,loss-type=ranking",
                "num-prompts=10,loss-type=logistic"
            ]
        );
        assert_eq!(points(&[]).unwrap(), [vec![]]);
        assert!(points(&[axes[0].clone(), axes[0].clone()]).is_err());
    }

    #[test]
    fn wrong_axes_are_refused() {
        for text in ["num-prompts", "=5", "--=5", "a=", "a=1,,2", "a=1,2,1"] {
            assert!(text.parse::<Axis>().is_err(), "{text}");
        }
    }

    #[test]
    fn folder_names_are_plain_and_tell_points_apart() {
        let name = |value: &str| {
            folder_name(&[Setting {
                name: "model-name".into(),
                value: value.into(),
            }])
        };
        let (a, b) = (name("a/b"), name("a b"));
        assert!(a != b && a.starts_with("model-name=a_b~") && b.starts_with("model-name=a_b~"));
        assert!(
            name(&"ü".repeat(500))
                .chars()
                .all(|c| c.is_ascii() && c != '/')
        );
        assert!(name(&"x".repeat(500)).len() <= LONGEST_NAME);
        assert_eq!(folder_name(&[]), "all-defaults");
    }

    #[test]
    fn a_plan_keeps_order_and_joins_lists() {
        let plan = Plan::parse(
            "categories = ['a']\nseeds = 3\n[options]\nimage-size = 112\nuse-cls = true\n\
             [grid]\nzeta = [1, 0.5]\nlayers = [[8], [8, 11]]\n",
        )
        .unwrap();
        assert_eq!(plan.seeds, [0, 1, 2]);
        let options: Vec<String> = plan.options.iter().map(Setting::to_string).collect();
        assert_eq!(options, ["image-size=112", "use-cls=true"]);
        assert_eq!(
            plan.grid[0],
            Axis {
                name: "zeta".into(),
                values: vec!["1".into(), "0.5".into()]
            }
        );
        assert_eq!(plan.grid[1].values, ["8", "8,11"]);
        assert_eq!(Plan::parse("seeds = [4, 9]").unwrap().seeds, [4, 9]);
    }

    #[test]
    fn a_wrong_plan_says_where() {
        for (text, part) in [
            ("seed = 3", "seed"),
            ("seeds = 0", "at least one"),
            ("[grid]\na = 1", "list of values"),
            ("[grid]\na = []", "grid.a"),
            ("[grid]\na = [{ b = 1 }]", "table"),
            ("[options", "line 1"),
        ] {
            let error = Plan::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
