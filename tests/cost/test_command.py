"""``python -m npnets cost`` with its options, and ``cost --paper``."""

import pytest

from npnets import cost, models
from npnets.cli import main


def test_a_papers_tables(capsys):
    assert main(["cost", "--paper", "mobilenet_v1"]) == 0
    text = capsys.readouterr().out
    for table in cost.paper_tables("mobilenet_v1"):
        assert str(table) in text
    assert text.count("\nHoward et al. 2017, Table") == 7 and "Sandler" not in text


def test_all_papers_as_markdown(capsys):
    assert main(["cost", "--paper", "all", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert text.count("**") == 2 * len(cost.paper_tables())
    assert text.count("| --- | --- | ---: | ---: | ---: | --- |") == len(cost.paper_tables())


def total(capsys):
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("total"))
    return [int(number.replace(",", "")) for number in line.split()[1:]]


@pytest.mark.parametrize(
    "options, counting",
    [([], {}), (["--bn", "none"], {"bn": "none"}), (["--bn", "all"], {"bn": "all"})],
)
def test_batch_norm(options, counting, capsys):
    assert main(["cost", "mobilenet_v2", *options]) == 0
    expected = cost.profile(models.mobilenet_v2(), (224, 224, 3), **counting)
    assert total(capsys) == [expected.params, expected.macs]


def test_settings_and_space_to_batch(capsys):
    options = ["--set", "output_stride=8", "bottleneck=relu6", "--atrous", "space_to_batch", "--resolution", "130"]
    assert main(["cost", "mobilenet_v2", *options]) == 0
    model = models.mobilenet_v2(output_stride=8)
    expected, plain = (cost.profile(model, (130, 130, 3), atrous=way) for way in ("space_to_batch", "as_written"))
    assert total(capsys) == [expected.params, expected.macs] and expected.macs > plain.macs


def test_set_may_be_given_several_times(capsys):
    assert main(["cost", "mobilenet_v2", "--set", "stem=48", "--set", "head=640", "bottleneck=relu6"]) == 0
    expected = cost.profile(models.mobilenet_v2(stem=48, head=640), (224, 224, 3))
    assert total(capsys) == [expected.params, expected.macs]


def test_a_part(capsys):
    assert main(["cost", "mobilenet_v2", "--part", "classifier"]) == 0
    assert total(capsys) == [1_281_000, 1_280_000]


def test_several_scales(capsys):
    assert main(["cost", "mobilenet_v2", "--scales", "0.5", "1", "--mirrored"]) == 0
    expected = cost.multi_scale(models.mobilenet_v2(), (224, 224, 3), [0.5, 1.0])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"at 112x112, 224x224, each with its mirror image: {expected.macs:,} multiply-adds"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["name a model or a --paper", "mobilenet_v2"]),
        (["mobilenet_v2", "--paper", "all"], ["name a model or a --paper"]),
        (["--paper", "mobilenet_v3"], ["mobilenet_v3", "efficientnet"]),
        (["mobilenet_v2", "--part", "body"], ["no part 'body'", "blocks"]),
        (["mobilenet_v2", "--part", "head", "--scales", "1"], ["--part", "--scales"]),
        (["mobilenet_v2", "--scales", "0"], ["scales"]),
        (["mobilenet_v2", "--set", "output_stride=12"], ["output_stride must be 8, 16 or 32", "12"]),
        (["mobilenet_v2", "--set", "outputstride=8"], ["no setting 'outputstride'", "output_stride"]),
        (["mobilenet_v2", "--set", "output_stride"], ["NAME=VALUE", "'output_stride'"]),
        (["mobilenet_v2", "--set", "stem=8", "--set", "stem=16"], ["stem is set twice"]),
        (["mobilenet_v2", "--width", "1", "--set", "width_mult=0.5"], ["width_mult is set twice"]),
        (["mobilenet_v2", "--part", ""], ["no part ''"]),
        (["--paper", "all", "--width", "2", "--part", "head"], ["--paper", "--width, --part"]),
        (["mobilenet_v2", "--resolution", "16"], ["too small", "higher resolution"]),
        (["mobilenet_v2", "--classes", "0"], ["--classes"]),
        (["mobilenet_v2", "--bn", "some"], ["--bn", "trainable"]),
    ],
)
def test_wrong_input_is_one_line(arguments, words, capsys):
    try:
        code = main(["cost", *arguments])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1
    assert all(word in err for word in words), err
