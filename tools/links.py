#!/usr/bin/env python3
"""Fails on a broken relative link, image or anchor in any Markdown file that git tracks. Standard library only.

    links.py [FILE.md ...]

Links to other sites are not visited. An anchor is compared with the headings as GitHub names them.
"""

import pathlib
import re
import subprocess
import sys
import urllib.parse

FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
NESTED = re.compile(r"\[!\[[^\]]*\]\(\s*<?([^)\s>]+)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.M)
HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"", re.I)
NAMED = re.compile(r"<[a-z]+\b[^>]*?\b(?:id|name)=\"([^\"]+)\"", re.I)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.I)


def prose(text):
    """The lines outside of fenced code with their numbers."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" `~"):
                fence = None
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def paragraphs(text):
    """Runs of prose lines with the number of their first: a link's text may be wrapped."""
    start, last, lines = 0, 0, []
    for number, line in prose(text):
        if lines and (number != last + 1 or not line.strip()):
            yield start, "\n".join(lines)
            lines = []
        if line.strip():
            if not lines:
                start = number
            lines.append(line)
        last = number
    if lines:
        yield start, "\n".join(lines)


def slug(heading):
    """The anchor GitHub gives a heading: lower case, no punctuation, a hyphen for each space."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    heading = re.sub(r"<[^>]+>|[`*]|\\", "", heading)
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path, known={}):
    """All anchors of a Markdown file."""
    if path not in known:
        found, seen = set(), {}
        for _, line in prose(path.read_text(encoding="utf-8")):
            heading = HEADING.match(line)
            if heading:
                name = slug(heading[1])
                times = seen.get(name, 0)
                seen[name] = times + 1
                found.add(f"{name}-{times}" if times else name)
            found.update(NAMED.findall(line))
        known[path] = found
    return known[path]


def targets(paragraph):
    """Where the links of a paragraph lead, with the lines before them."""
    plain = CODE.sub(lambda code: re.sub(r"[^\n]", "x", code[0]), paragraph)
    for pattern in (INLINE, NESTED, REFERENCE, HTML):
        for link in pattern.finditer(plain):
            yield plain.count("\n", 0, link.start(1)), link[1]


def fault(root, page, target, tracked):
    """What is wrong with a link, or None."""
    name, _, anchor = urllib.parse.unquote(target).partition("#")
    path = (page.parent / name).resolve() if name else page
    if name.startswith("/"):
        return "begins with '/': link from the file's own folder"
    if not path.is_relative_to(root):
        return "leads out of the repository"
    if not path.exists():
        return "no such file"
    inside = path.relative_to(root).as_posix()
    if inside != "." and inside not in tracked and not any(one.startswith(f"{inside}/") for one in tracked):
        return "not a tracked file"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"no heading '#{anchor}' in {inside}"
    return None


def main(names):
    root = pathlib.Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    tracked = {name for name in listed.split("\0") if name}
    if names:
        pages = [pathlib.Path(name).resolve() for name in names]
    else:
        pages = [root / name for name in sorted(tracked) if name.endswith(".md") and (root / name).exists()]
    links, faults = 0, 0
    for page in pages:
        for number, paragraph in paragraphs(page.read_text(encoding="utf-8")):
            for before, target in targets(paragraph):
                if ELSEWHERE.match(target):
                    continue
                links += 1
                why = fault(root, page, target, tracked)
                if why:
                    faults += 1
                    print(f"{page.relative_to(root)}:{number + before}: {target}: {why}")
    print(f"{len(pages)} pages, {links} relative links, {faults} broken")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
