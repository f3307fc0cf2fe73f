"""Create .venv with everything that builds, runs and tests the course.

It runs on whatever Python is there, so it keeps to old syntax until it knows the version. Each
way in which it can fail ends in one line that says what to do.
"""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(BIN, "python")
COMPLETE = os.path.join(VENV, ".complete")
OLDEST, NEWEST = (3, 10), (3, 13)
FREE_GIB_NEEDED = 3

# What pip or venv says when it fails, and what that means for the person who reads it.
CAUSES = (
    (
        ("no space left on device", "errno 28", "disk quota exceeded"),
        "The disk is full: free some space (the course needs about 3 GiB), then run make again.",
    ),
    (
        (
            "temporary failure in name resolution",
            "failed to establish a new connection",
            "name or service not known",
            "nodename nor servname",
            "newconnectionerror",
            "network is unreachable",
            "max retries exceeded",
            "connection refused",
            "read timed out",
            "connecttimeout",
            "getaddrinfo failed",
            "proxyerror",
        ),
        "No network: the packages could not be fetched. Connect, then run make again; what was "
        "fetched so far is kept.",
    ),
    (
        ("ensurepip is not available", "no module named ensurepip", "no module named venv"),
        "This Python has no venv module: install it (on Debian and Ubuntu: apt install "
        "python3-venv), then run make again.",
    ),
    (
        ("permission denied", "errno 13"),
        "No permission to write in this folder: make it yours, or clone the course elsewhere.",
    ),
)


def fail(message):
    """End with one line."""
    sys.stderr.write(message + "\n")
    sys.exit(1)


def explain(output, step):
    """Turn the output of a failed step into the one line that says what to do."""
    lowered = output.lower()
    for signs, advice in CAUSES:
        if any(sign in lowered for sign in signs):
            return advice
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines
    return "%s failed: %s" % (step, errors[-1] if errors else "it said nothing")


def run(step, *command):
    """Run one step; on failure say in one line what to do."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    output = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode:
        fail(explain(output, step))


def pip_install(what, *arguments):
    """Let pip install something into .venv."""
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run("Installing " + what, *(pip + arguments))


def check_python():
    """Refuse a Python that the pinned packages do not run on."""
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST:
        fail(
            "The course needs Python %d.%d to %d.%d, but '%s' is %d.%d: install one of them and "
            "name it, for example 'make book PYTHON=python3.12'."
            % (OLDEST + NEWEST + (os.path.basename(sys.executable),) + tuple(sys.version_info[:2]))
        )


def check_venv():
    """Refuse a Python without the modules that make an environment."""
    try:
        __import__("venv")
        __import__("ensurepip")
    except ImportError:
        fail(explain("No module named venv", "Creating .venv"))


def check_disk():
    """Refuse to begin what the disk cannot hold."""
    import shutil

    free = shutil.disk_usage(ROOT).free / 2**30
    if free < FREE_GIB_NEEDED and not os.path.isdir(VENV):
        fail(
            "The disk is full: %.1f GiB are free, and the course needs about %d GiB. Free some "
            "space, then run make again." % (free, FREE_GIB_NEEDED)
        )


def main():
    """Create the environment, or bring it up to date."""
    check_python()
    check_venv()
    check_disk()
    print("Setting up .venv (a few minutes the first time)...")
    sys.stdout.flush()
    if not os.path.exists(PYTHON):
        run("Creating .venv", sys.executable, "-m", "venv", "--clear", VENV)
    pip_install("requirements.txt", "-r", "requirements.txt")
    pip_install("gptlib", "--no-deps", "--no-build-isolation", "--editable", ".")
    with open(COMPLETE, "w") as stamp:
        stamp.write("")


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        fail(explain(str(problem), "The set-up"))
    except KeyboardInterrupt:
        fail("Stopped; run make again to go on.")
