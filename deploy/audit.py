"""Known vulnerabilities of the pinned dependencies: `make audit`.

Asks PyPI's advisories, through pip-audit, about every version in constraints.txt; exits with 1 if there are any, and
with 3 where not all could be looked up: nothing is known of those, which is not the same as safe.
"""

import json
import subprocess
import sys
from pathlib import Path

UNKNOWN = 3
PINNED = Path(__file__).parents[1] / "constraints.txt"


def main() -> int:
    """Print what was found, one line for each vulnerability; the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINNED), "--no-deps", "--disable-pip"]
    asked = subprocess.run([*command, "--progress-spinner=off", "--format=json"], capture_output=True, text=True)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        print(f"audit: NOT AUDITED: expected an answer of pip-audit, found none\n{asked.stderr[-2000:]}")
        return UNKNOWN if "connect" in asked.stderr.lower() else 1
    known = [package for package in packages if "vulns" in package]
    for package in known:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no release"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    print(f"audit: {len(known)} of {len(packages)} pinned packages looked up")
    if any(package["vulns"] for package in known):
        return 1
    if len(known) < len(packages):
        skipped = ", ".join(package["name"] for package in packages if package not in known) if known else "all of them"
        print(f"audit: NOT AUDITED: {skipped}; run it where PyPI's advisories can be reached")
        return UNKNOWN
    return 0


if __name__ == "__main__":
    sys.exit(main())
