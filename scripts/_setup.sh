# Sourced by the scripts beside it: `prepare EXTRAS` makes .venv and installs the package there, once.
# GRM_PYTHON names the interpreter to build .venv with; by default the first of the list below that is new enough.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf '== %s\n' "$*" >&2; }

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# Prints the comment that the script opens with.
usage() { awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  if [[ -n ${GRM_PYTHON:-} ]]; then
    new_enough "$GRM_PYTHON" || fail "GRM_PYTHON=$GRM_PYTHON does not run or is older than 3.11; name another Python"
    printf '%s\n' "$GRM_PYTHON"
    return
  fi
  local name
  for name in python3.11 python3.12 python3.13 python3; do
    if new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  fail "no Python 3.11 or newer found; install one, or set GRM_PYTHON to its path"
}

# A folder left by an interrupted set-up has no interpreter or no pip that works.
venv_works() {
  [[ $("$venv/bin/python" -c 'import pip, sys; print(sys.prefix)' 2>/dev/null) == "$venv" ]] && new_enough "$venv/bin/python"
}

make_venv() {
  local python
  python=$(find_python) || exit
  say "making .venv with $python"
  "$python" -m venv --clear "$venv" 2>/dev/null && return
  # Some systems split ensurepip off from Python: then its own pip fills the new environment.
  "$python" -m venv --clear --without-pip "$venv" || fail "$python cannot make a virtual environment; see the lines above"
  "$python" -m pip --python "$venv/bin/python" install --quiet pip || fail "$python has neither ensurepip nor pip; install one"
}

# What an installation depends on: the requirements, and the place that an editable install points to.
fingerprint() { { cat "$root/pyproject.toml" && printf '%s' "$root"; } | cksum; }

# prepare EXTRAS...: the package with every extra given ("test dev"), or with none; does nothing when that is done already.
prepare() {
  venv_works || make_venv
  local wanted stamp extra missing=()
  wanted=$(fingerprint)
  for extra in base "$@"; do
    stamp=$venv/.grm-$extra
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] || missing+=("$extra")
  done
  ((${#missing[@]})) || return 0
  local extras
  extras=$(IFS=, && printf '%s' "$*")
  say "installing grm_jax${extras:+ with the extra(s) $extras} into .venv (some minutes the first time)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" ||
    fail "pip could not install the package; see the lines above, then run this again"
  for extra in base "$@"; do
    printf '%s\n' "$wanted" >"$venv/.grm-$extra"
  done
}
