# Sourced by the scripts beside it: how options are read, and how commands are run or, with --dry-run, printed.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  printf '%s: needs bash 4.4 or newer, this is %s\n' "${0##*/}" "$BASH_VERSION" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/_setup.sh" # root, say, fail, usage

declare -A option=() # by name; a switch that was given is "yes"
words=()             # what is no option, and all that follows --

# parse VALUES SWITCHES ARGUMENT...: fills `option` and `words`. VALUES and SWITCHES are names, separated by spaces.
parse() {
  local values=" $1 " switches=" $2 dry-run " name
  shift 2
  while (($#)); do
    case $1 in
      --)
        words+=("${@:2}")
        return
        ;;
      -h | --help)
        usage
        exit
        ;;
      --*)
        name=${1%%=*}
        name=${name#--}
        if [[ $switches == *" $name "* && $1 != *=* ]]; then
          option[$name]=yes
        elif [[ $values == *" $name "* && $1 == *=* ]]; then
          option[$name]=${1#*=}
        elif [[ $values == *" $name "* && $# -gt 1 && $2 != --* ]]; then
          option[$name]=$2
          shift
        elif [[ $values == *" $name "* ]]; then
          fail "--$name needs a value; see --help"
        else
          fail "$1: no such option; see --help"
        fi
        if [[ -z ${option[$name]} ]]; then fail "--$name needs a value; see --help"; fi
        ;;
      -*) fail "$1: no such option; see --help" ;;
      *) words+=("$1") ;;
    esac
    shift
  done
}

# required NAME...: refuses to go on without these options.
required() {
  local name
  for name in "$@"; do
    [[ -n ${option[$name]:-} ]] || fail "--$name is missing; see --help"
  done
}

# check NAME PATTERN EXAMPLE: refuses a value, if there is one, that does not match as a whole.
check() {
  local value=${option[$1]:-}
  [[ -z $value || $value =~ ^($2)$ ]] || fail "--$1 $value: is not like $3"
}

# The names that a TPU, a queued resource or a job may have.
check_names() {
  check name '[a-z]([-a-z0-9]{0,61}[a-z0-9])?' "judge-pod: small letters, digits and dashes, a letter first"
  check job '[A-Za-z0-9][-A-Za-z0-9_]*' "judge_1: letters, digits, dashes and underscores"
  check worker '[0-9]+|all' "0 or all"
  check bucket '[a-z0-9][-a-z0-9_.]+[a-z0-9]' "my-bucket: a name without gs:// and without a folder"
  check mount '(/[-A-Za-z0-9_.]+)+' "/mnt/grm"
}

# given NAME...: the options among these that were given, into `given_options`, to be handed to another script.
given() {
  local name
  given_options=()
  for name in "$@"; do
    case ${option[$name]:-} in
      "") ;;
      yes) given_options+=("--$name") ;;
      *) given_options+=("--$name=${option[$name]}") ;;
    esac
  done
}

dry() { [[ -n ${option[dry-run]:-} ]]; }

# quoted WORD...: one line that a shell reads as these words.
quoted() {
  local word line=""
  for word in "$@"; do
    if [[ $word =~ ^[-A-Za-z0-9_=:/.,@%+]+$ ]]; then line+="$word "; else line+="${word@Q} "; fi
  done
  printf '%s\n' "${line% }"
}

# run WORD...: runs a command, or prints it.
run() { if dry; then quoted "$@"; else "$@"; fi; }

# tpus GROUP VERB WORD...: `gcloud compute tpus`, where the options say; what they leave out, gcloud takes from its configuration.
tpus() {
  local where=()
  if [[ -n ${option[zone]:-} ]]; then where+=("--zone=${option[zone]}"); fi
  if [[ -n ${option[project]:-} ]]; then where+=("--project=${option[project]}"); fi
  run gcloud compute tpus "$@" "${where[@]}"
}

# on_hosts WORKER WORD...: runs a command on a host of the TPU, or on all; it arrives word for word, whatever the words hold.
on_hosts() {
  local worker=$1
  shift
  tpus tpu-vm ssh "${option[name]}" "--worker=$worker" "--command=$(quoted "$@")"
}

# The state of the TPU, or of its request; empty if there is none.
state() {
  local errors code=0
  errors=$(mktemp)
  if [[ -n ${option[queued]:-} ]]; then
    tpus queued-resources describe "${option[name]}" "--format=value(state.state)" 2>"$errors" || code=$?
  else
    tpus tpu-vm describe "${option[name]}" "--format=value(state)" 2>"$errors" || code=$?
  fi
  if ((code)) && grep -q NOT_FOUND "$errors"; then code=0; else cat "$errors" >&2; fi
  rm "$errors"
  return "$code"
}

# Tells `grm` among `words`, the command to be run, that every host takes part.
distributed() {
  ((${#words[@]})) || fail "no command; give it after --"
  if [[ ${words[0]} == grm && ${words[1]:-} != --distributed ]]; then words=(grm --distributed "${words[@]:1}"); fi
}
