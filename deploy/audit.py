"""Known vulnerabilities of the pinned dependencies: `make audit`.

Asks PyPI's advisories, through pip-audit, about every version in constraints.txt; exits with 1 if there are any, and
with 2 where not all could be looked up: nothing is known of those, which is not the same as safe.
"""

import json
import subprocess
import sys
from pathlib import Path

UNKNOWN = 2
PINNED = Path(__file__).parents[1] / "constraints.txt"


def main() -> int:
    """Print what was found, one line for each vulnerability; the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINNED), "--no-deps", "--disable-pip"]
    asked = subprocess.run([*command, "--progress-spinner=off", "--format=json"], capture_output=True, text=True)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        print(f"audit: expected an answer of pip-audit, found none; nothing was audited\n{asked.stderr[-2000:]}")
        return UNKNOWN
    known = [package for package in packages if "vulns" in package]
    for package in known:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no release"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    print(f"audit: {len(known)} of {len(packages)} pinned packages looked up")
    if any(package["vulns"] for package in known):
        return 1
    if len(known) < len(packages):
        print("audit: NOT AUDITED: PyPI's advisories cannot be reached from here; run it where they can")
        return UNKNOWN
    return 0


if __name__ == "__main__":
    sys.exit(main())
