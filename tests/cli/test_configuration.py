"""gin: what is wrong in a configuration is told in one line, with its file and line."""

import pytest

from grm_jax.cli import configure
from grm_jax.data.critiques import ArenaCritiques
from grm_jax.errors import UserError
from grm_jax.train.sft import Sft


@pytest.fixture
def gin_file(tmp_path):
    def write(text, name="a.gin"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("Sft.rows = 3\nSft.stepz = 4", 2, "doesn't have a parameter named 'stepz'"),
        ("\nTrainer.steps = 4", 2, "No configurable matching 'Trainer'"),
        ("# Sft.steps = 1\nSft.steps = %STEPS", 2, "the macro STEPS is not set; add a line STEPS = VALUE"),
        ("Sft.rows = 3\n\nSft.steps = 'many'", 3, "Sft.steps = 'many' must be of type int"),
        ("Sft.steps = True", 1, "Sft.steps = True must be of type int"),
        ("Sft.learning_rate = '1e-3'", 1, "must be of type float"),
        ("STEPS = 1.5\nSft.steps = %STEPS", 2, "Sft.steps = 1.5 must be of type int"),
        ("ArenaCritiques.noise = 5", 1, "ArenaCritiques.noise = 5 must be of type Noise"),
        ("ArenaCritiques.noise = @Noize()", 1, "No configurable matching reference '@Noize()'"),
        ("Sft.rows = 3\nSft.steps = = 3", 2, "Unable to parse value"),
        ("Sft.rows = 3\nSft.steps", 2, "Couldn't parse statement"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(refused, gin_file, tmp_path, text, line, message):
    path = gin_file(text)
    error = refused("train", "sft", "--gin_file", path, "--output", tmp_path / "run")
    assert error.startswith(f"grm train: {path}:{line}: ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Sft.stepz=4", "doesn't have a parameter named 'stepz'"),
        ("Sft.steps='x'", "Sft.steps = 'x' must be of type int"),
        ("Sft.steps=%NONE", "the macro NONE is not set"),
        ("Sft.steps=", "Unable to parse value"),
        ("Sft.steps=[", "EOF in multi-line statement"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_as_it_was_typed(refused, gin_file, tmp_path, binding, message):
    path = gin_file("Sft.steps = 4")
    error = refused("train", "sft", "--gin_file", path, f"--gin.{binding}", "--output", tmp_path / "run")
    assert error.startswith(f"grm train: --gin.{binding}: ")
    assert message in error


def test_a_value_that_the_settings_refuse_is_named_with_its_place(gin_file):
    path = gin_file("# first\nSft.steps = 0")
    configure.load([path], [])
    with pytest.raises(UserError, match=rf"^{path}:2: Sft.steps must be at least 1, not 0$"):
        configure.make(Sft)


def test_a_missing_file_and_a_missing_setting_say_what_to_do(refused, gin_file, tmp_path):
    error = refused("train", "sft", "--gin_file", tmp_path / "gone.gin", "--output", tmp_path / "run")
    assert "gone.gin: no such gin file; the shipped ones are in configs/models and configs/runs" in error
    error = refused("train", "sft", "--gin_file", gin_file("Sft.rows = 2"), "--output", tmp_path / "run")
    assert "configuration: Sft.steps not set; add a --gin_file that sets it, or --gin.Sft.steps=VALUE" in error


def test_macros_includes_and_references_work_and_the_last_setting_wins(gin_file):
    base = gin_file(
        "STEPS = 7\nSft.steps = %STEPS\nSft.rows = 2\nArenaCritiques.noise = @Noise()\nNoise.careless = 0.5", "b.gin"
    )
    path = gin_file(f"include '{base}'\nSft.rows = 3  # wins over the included one")
    configure.load([path], [])
    assert (configure.make(Sft).steps, configure.make(Sft).rows) == (7, 3)
    assert configure.make(ArenaCritiques).noise.careless == 0.5
    configure.load([path], ["STEPS=9", "Sft.rows=4"])
    assert (configure.make(Sft).steps, configure.make(Sft).rows) == (9, 4)
    assert configure.make(Sft, rows=5).rows == 5
    configure.load([], [])
    with pytest.raises(UserError, match=r"Sft.steps not set"):
        configure.make(Sft)


def test_a_mistake_in_an_included_file_is_named_there(gin_file):
    base = gin_file("Sft.rows = 2\nSft.steps = 'x'", "b.gin")
    with pytest.raises(UserError, match=rf"^{base}:2: Sft.steps = 'x'"):
        configure.load([gin_file(f"include '{base}'")], [])


def test_a_scope_has_settings_of_its_own_and_shares_the_others(gin_file):
    configure.load(
        [gin_file("Sft.steps = 7\nSft.rows = 2\nrft/Sft.steps = 3\nbase/grm_jax.Sft.rows = 5")],
        ["base/Sft.steps=9"],
        scopes=("base", "rft"),
    )
    made = [configure.make(Sft, scope=scope) for scope in ("", "base", "rft")]
    assert [(sft.steps, sft.rows) for sft in made] == [(7, 2), (9, 5), (3, 2)]
    assert configure.make(Sft, scope="rft", steps=1).steps == 1
    assert "base/Sft.steps = 9" in configure.operative()


def test_a_reference_is_made_in_the_scope_it_names_else_in_that_of_its_owner(gin_file):
    noises = "ArenaCritiques.noise = @Noise()\nrft/ArenaCritiques.noise = @loud/Noise()"
    text = f"{noises}\nbase/Noise.careless = 0.5\nloud/Noise.careless = 0.75"
    configure.load([gin_file(text)], [], scopes=("base", "rft"))
    assert [configure.make(ArenaCritiques, scope=scope).noise.careless for scope in ("base", "rft")] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("Sft.steps = 4\nbase/Sft.steps = 'x'", 2, "base/Sft.steps = 'x' must be of type int"),
        ("base/Sft.steps = 4\nSft.steps = 'x'", 2, "Sft.steps = 'x' must be of type int"),
        ("Sft.steps = 4\n\nbsae/Sft.rows = 4", 3, "the scope 'bsae' is not known; known here: base, rft"),
        ("base/Sft.stepz = 4", 1, "doesn't have a parameter named 'stepz'"),
        ("base/Sft.steps = %STEPS", 1, "the macro STEPS is not set"),
        (
            "ArenaCritiques.noise = @loud/Noise()\nloud/Noise.careless = 'x'",
            2,
            "loud/Noise.careless = 'x' must be of type",
        ),
    ],
)
def test_a_mistake_in_a_scope_is_named_with_its_line(gin_file, text, line, message):
    path = gin_file(text)
    with pytest.raises(UserError) as error:
        configure.load([path], [], scopes=("base", "rft"))
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


def test_a_value_that_is_refused_in_a_scope_is_named_where_it_is_written(gin_file):
    path = gin_file("Sft.steps = 4\nbase/Sft.steps = 0\nSft.rows = -1")
    configure.load([path], [], scopes=("base",))
    with pytest.raises(UserError, match=rf"^{path}:2: Sft.steps must be at least 1, not 0$"):
        configure.make(Sft, scope="base")
    with pytest.raises(UserError, match=rf"^{path}:3: Sft.rows must be at least 1, not -1$"):
        configure.make(Sft)
    configure.load([], ["rft/Sft.rows=2"], scopes=("rft",))
    with pytest.raises(UserError, match=r"rft/Sft.steps not set; .* or --gin.rft/Sft.steps=VALUE"):
        configure.make(Sft, scope="rft")


def test_commands_without_scopes_refuse_them(refused, gin_file, tmp_path):
    error = refused("train", "sft", "--gin_file", gin_file("base/Sft.steps = 4"), "--output", tmp_path / "run")
    assert "base/Sft: the scope 'base' is not known; there are none here" in error


def test_the_operative_configuration_reads_back(gin_file):
    configure.load([gin_file("Sft.steps = 7\nSft.clip = 0.25")], ["Sft.rows=3"])
    made = configure.make(Sft)
    configure.load([gin_file(configure.operative(), "again.gin")], [])
    assert configure.make(Sft) == made


def test_judge_saves_the_configuration_it_used(grm, scripted, items, gin_file, tmp_path):
    path = gin_file("SamplingPolicy.temperature = 0.7\nSamplingPolicy.top_p = 0.9")
    given = ("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 1, "--gin_file", path)
    assert grm(*given, "--top-p", 0.8)[0] == 0  # an option wins over a file
    configure.load([str(tmp_path / "run" / "config.gin")], [])
    saved = (tmp_path / "run" / "config.gin").read_text()
    assert "SamplingPolicy.temperature = 0.7" in saved
    assert '"temperature": 0.7' in (tmp_path / "run" / "run.json").read_text()
    assert '"top_p": 0.8' in (tmp_path / "run" / "run.json").read_text()
