"""Malformed search files: each is refused with its parameter, its value and the rule, before anything runs."""

import pytest

from birdclef_core.errors import InputError
from sweeps.cli.tune import tune_main
from sweeps.options import SweepOptions
from sweeps.run.request import plan_request
from sweeps.search.search_files import load_search

HEAD = """
from dataclasses import replace

from birdclef_core.recipes import RECIPES, sed_v2s, small_budget
from sweeps.search import Choice, Range, Search

R = small_budget(sed_v2s())
C = small_budget(RECIPES["cnn_v2s"]())
"""

MALFORMED = {
    "no recipes": ("Search(name='x', recipes=(), space={})", "at least one recipe"),
    "one recipe that is no tuple": ("Search(name='x', recipes=R, space={})", r"must be a tuple .* but is Recipe"),
    "a function that was not called": ("Search(name='x', recipes=(sed_v2s,), space={})", r"call it, sed_v2s\(\)"),
    "the name of a recipe": ("Search(name='x', recipes=('sed_v2s',), space={})", r"must be a Recipe, but one is 'sed_v2s'"),
    "a recipe twice": ("Search(name='x', recipes=(R, R), space={})", r"different names, but sed_v2s is there more than once"),
    "a space that is no dict": ("Search(name='x', recipes=(R,), space=[1])", r"space of search 'x' must be a dict"),
    "a plain list": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': [3.0, 4.0]})", r"must be a Choice or a Range"),
    "a plain value": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': 3.0})", r"train_ce\.clip_s.*must be a Choice"),
    "a choice of nothing": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': Choice(())})", r"got Choice\(\(\)\)"),
    "a choice of a string": ("Search(name='x', recipes=(R,), space={'train_ce.loss': Choice('bce')})", r"got Choice\('bce'\)"),
    "a choice of one value": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': Choice(3.0)})", r"got Choice\(3\.0\)"),
    "an infinite range": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(1, float('inf'))})", "must be finite"),
    "a range from NaN": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(float('nan'), 1)})", "must be finite"),
    "a range of text": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range('1', '2')})", r"must be numbers, .*low='1'"),
    "a range backwards": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(2, 1)})", "low <= high"),
    "a logarithm of zero": ("Search(name='x', recipes=(R,), space={'train.learning_rate': Range(0, 1, log=True)})", "low > 0"),
    "an unknown group": (
        "Search(name='x', recipes=(R,), space={'trian.clip_s': Range(3, 4)})",
        r"'trian\.clip_s' names no field: .* groups .*Perhaps 'train\.clip_s' is meant",
    ),
    "no group": (
        "Search(name='x', recipes=(R,), space={'clip_s': Range(3, 4)})",
        r"a name is <stage or group>\.<field>.*Perhaps 'every\.clip_s' is meant",
    ),
    "a key that is no text": ("Search(name='x', recipes=(R,), space={3: Range(3, 4)})", r"Parameter 3 .* names no field"),
    "a pool of 2.5": (
        "Search(name='x', recipes=(R,), space={}, pools={'pretrain_ce': 2.5})",
        r"whole number .*'pretrain_ce': 2\.5",
    ),
    "a pool of none": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': 0})", "at least 1"),
    "a pool of true": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': True})", "whole number"),
    "an unknown pool": ("Search(name='x', recipes=(R,), space={}, pools={'early': 2})", "'early': 2"),
    "a pool without parameters": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': 2})", "must have parameters"),
    "an unknown sampler": (
        "Search(name='x', recipes=(R,), space={}, sampler='tpee')",
        "sampler must be one of .*Perhaps 'tpe' is meant",
    ),
    "a grid of an infinite space": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(3, 4)}, sampler='grid')",
        "sampler 'grid' needs a finite space",
    ),
    "an unknown field": (
        "Search(name='x', recipes=(R,), space={'train.clip_seconds': Range(3, 4)})",
        r"train has no field 'clip_seconds'\. Perhaps 'train\.clip_s' is meant",
    ),
    "an unknown nested field": (
        "Search(name='x', recipes=(R,), space={'train_ce.mixing.wav': Range(.1, .2)})",
        r"mixing has no field 'wav'\. Perhaps 'train_ce\.mixing\.wave_prob' is meant",
    ),
    "a field of another place": (
        "Search(name='x', recipes=(R,), space={'train.wave_prob': Range(0, 1)})",
        r"Perhaps 'train\.mixing\.wave_prob' is meant",
    ),
    "fields inside a number": (
        "Search(name='x', recipes=(R,), space={'train.clip_s.x': Range(0, 1)})",
        r"train\.clip_s is a single value",
    ),
    "a group of fields": ("Search(name='x', recipes=(R,), space={'train.mixing': Choice((1,))})", "has fields of its own"),
    "a field of noise": (
        "Search(name='x', recipes=(R,), space={'train.noise.prob': Range(0, 1)})",
        r"noise has no field 'prob'\. Perhaps 'train\.noise\.\*\.prob' is meant",
    ),
    "a choice of the wrong type": (
        "Search(name='x', recipes=(R,), space={'train_ce.epochs': Choice(('one',))})",
        r"epochs takes a int.*'one'",
    ),
    "a range between numbers that are not whole": (
        "Search(name='x', recipes=(R,), space={'train_ce.epochs': Range(1.5, 3)})",
        r"'train_ce\.epochs' of search 'x' takes whole numbers, .*low=1\.5",
    ),
    "a probability above one": (
        "Search(name='x', recipes=(R,), space={'train_bce.mixing.wave_prob': Range(0.0, 1.3)})",
        r"wave_prob.* can take the value 1\.3, which recipe 'sed_v2s' cannot: 0 <= wave_prob <= 1",
    ),
    "a negative learning rate": ("Search(name='x', recipes=(R,), space={'train.learning_rate': Range(-1.0, 1.0)})", r"-1\.0"),
    "a clip of no length": ("Search(name='x', recipes=(R,), space={'train.clip_s': Choice((5.0, 0.0))})", r"value 0\.0"),
    "the name of a stage": (
        "Search(name='x', recipes=(R,), space={'train_ce.name': Choice(('train_ce', 'train_bce'))})",
        "must be a setting",
    ),
    "another label space at the end": (
        "Search(name='x', recipes=(R,), space={'finetune.label_space': Choice(('all', 'target'))})",
        r"must be 'target' in the last stage, .* but can be 'all'",
    ),
    "a recipe with clips that its model cannot take": (
        "Search(name='x', recipes=(replace(C, stages=tuple(replace(s, clip_s=7.0) for s in C.stages)),), space={})",
        r"Recipe 'cnn_v2s' of search 'x': stage pretrain_ce: clip_s .*7",
    ),
    "an unknown loss": ("Search(name='x', recipes=(R,), space={'train.loss': Choice(('bce', 'hinge'))})", "hinge"),
    "a chain that ends in pretraining": (
        "Search(name='x', recipes=(replace(R, stages=R.stages[:2]),), space={})",
        r"\(val/cmap\), but .* ends with pretrain_bce, whose label_space is 'all'.*--objective val_all/cmap\.",
    ),
    "a chain without the scores of soundscapes": (
        "Search(name='x', recipes=(replace(R, stages=R.stages[:2]),), space={}, objective='val/lrap + val_soundscapes/auroc')",
        r"\(val/lrap \+ val_soundscapes/auroc\), but .* ends with pretrain_bce, .*--objective val_all/lrap\.",
    ),
    "a chain without the scores of pretraining": (
        "Search(name='x', recipes=(R,), space={}, objective='val_all/lrap')",
        r"\(val_all/lrap\), but .* ends with finetune, whose label_space is 'target'.*--objective val/lrap\.",
    ),
    "another label space at the end of pretraining": (
        "Search(name='x', recipes=(replace(R, stages=R.stages[:2]),), objective='val_all/cmap', "
        "space={'pretrain_bce.label_space': Choice(('all', 'target'))})",
        r"must be 'all' in the last stage, .* but can be 'target'",
    ),
    "an unknown objective": ("Search(name='x', recipes=(R,), space={}, objective='val/cmpa')", "Perhaps 'val/cmap' is meant"),
    "an objective that is no text": ("Search(name='x', recipes=(R,), space={}, objective=0.5)", "An objective must be text"),
    "a mistyped field of the model": (
        "Search(name='x', recipes=(R,), space={'model.spectrogram.num_mel': Choice((64,))})",
        r"Perhaps 'model\.spectrogram\.num_mels' is meant",
    ),
    "a field of the model for stages": (
        "Search(name='x', recipes=(R,), space={'train.num_mels': Choice((64,))})",
        r"Perhaps 'model\.spectrogram\.num_mels' is meant",
    ),
    "a field of stages for the model": (
        "Search(name='x', recipes=(R,), space={'model.clip_s': Choice((5.0,))})",
        r"Perhaps 'every\.clip_s' is meant",
    ),
    "the whole spectrogram": (
        "Search(name='x', recipes=(R,), space={'model.spectrogram': Choice((1,))})",
        r"has fields of its own: model\.spectrogram\.num_mels",
    ),
    "an unknown encoder": (
        "Search(name='x', recipes=(R,), space={'model.encoder': Choice(('resnet18d.ra2_in1k', 'resnet18dd'))})",
        r"model of timm .* but 'resnet18dd' is not\. Similar names: resnet18d",
    ),
    "an encoder that is a number": (
        "Search(name='x', recipes=(R,), space={'model.encoder': Choice((18,))})",
        r"'model\.encoder'.* value 18, .*takes a str",
    ),
    "a range of encoders": (
        "Search(name='x', recipes=(R,), space={'model.encoder': Range(1, 2)})",
        r"'model\.encoder'.* takes text, so it must be a Choice",
    ),
    "a range of losses": (
        "Search(name='x', recipes=(R,), space={'train.loss': Range(0, 1)})",
        r"'train\.loss'.* takes text, so it must be a Choice",
    ),
    "a range of true and false": (
        "Search(name='x', recipes=(R,), space={'train.freeze_encoder': Range(0, 1)})",
        r"takes true or false, so it must be a Choice",
    ),
    "an unknown head": (
        "Search(name='x', recipes=(R,), space={'model.head': Choice(('sed', 'mlp'))})",
        r"'model\.head'.* value 'mlp', .*head must be one of sed, cnn",
    ),
    "a drop rate of one": (
        "Search(name='x', recipes=(R,), space={'model.drop_rate': Range(0.0, 1.0)})",
        r"'model\.drop_rate'.* value 1\.0, .*0 <= drop_rate < 1",
    ),
    "too few mel bins": (
        "Search(name='x', recipes=(R,), space={'model.spectrogram.num_mels': Range(4, 128)})",
        r"value 4, .*num_mels >= 8 must hold",
    ),
    "a hop longer than the window": (
        "Search(name='x', recipes=(R,), space={'model.spectrogram.hop_length': Choice((500, 4096))})",
        r"value 4096, .*hop_length <= n_fft",
    ),
    "an unknown source of noise": (
        "Search(name='x', recipes=(R,), space={'train.noise.rain.prob': Range(0, 1)})",
        r"names 'train\.noise\.rain\.prob', which no recipe .*by number from 0 or by source: \*",
    ),
    "a group of noise too many": (
        "Search(name='x', recipes=(R,), space={'train.noise.1.prob': Range(0, 1)})",
        r"names 'train\.noise\.1\.prob', which no recipe",
    ),
    "a noise probability above one": (
        "Search(name='x', recipes=(R,), space={'train.noise.*.prob': Range(0, 2)})",
        r"'train\.noise\.\*\.prob'.* value 2\.0, .*0 <= prob <= 1",
    ),
    "noise without a field": (
        "Search(name='x', recipes=(R,), space={'train.noise.0': Choice((1,))})",
        r"noise has no field '0'",
    ),
    "a stage that no recipe has": (
        "Search(name='x', recipes=(RECIPES['cnn_b0ns'](),), space={'finetune.epochs': Range(1, 3)})",
        r"names 'finetune\.epochs', which no recipe .*has the stages: train_ce\.",
    ),
    "an epoch and a half": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Choice((1, 1.5))})",
        r"value 1\.5, .*takes a int",
    ),
    "true as a number": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Choice((True, 2))})",
        r"value True, .*takes a int",
    ),
    "a text as a number": (
        "Search(name='x', recipes=(R,), space={'train.learning_rate': Choice(('1e-3',))})",
        r"value '1e-3', .*takes a float",
    ),
    "no epochs": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Range(0, 10)})",
        r"value 0, .*epochs >= 1",
    ),
    "a batch of one": (
        "Search(name='x', recipes=(R,), space={'train.batch_size': Range(1, 32)})",
        r"value 1, .*batch_size >= 2",
    ),
    "a value twice": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice((5, 5.0))})",
        r"must differ, but 5\.0 is there twice",
    ),
    "a list as a value": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice(([5.0],))})",
        r"must be text, finite numbers, .*but one is \[5\.0\]",
    ),
    "an infinite choice": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice((5.0, float('inf')))})",
        r"finite numbers, .*but one is inf",
    ),
    "a choice of a set": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice({5.0, 10.0})})",
        r"takes its values as a tuple",
    ),
    "a choice without brackets": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice(5.0, 10.0)})",
        r"takes its values as a tuple, .*got Choice\(5\.0\)",
    ),
    "a choice of many without brackets": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Choice(5.0, 10.0, 15.0)})",
        r"TypeError in line",
    ),
    "a range of three numbers": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5.0, 10.0, 15.0)})",
        r"log of a Range must be True or False, but got 15\.0",
    ),
    "a range of one number": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5.0)})",
        r"TypeError in line",
    ),
    "a range that is not called": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range})",
        r"must be a Choice or a Range, .*but is <class",
    ),
    "a step that misses the end": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, step=2)})",
        r"whole number of steps .*The last value below high is 9",
    ),
    "a step of zero": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, step=0)})",
        r"step > 0 must hold",
    ),
    "half a step for whole numbers": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Range(5, 10, step=0.5)})",
        r"'train\.epochs' of search 'x' takes whole numbers, .*step=0\.5",
    ),
    "steps on a logarithmic scale": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Range(2, 10, log=True, step=2)})",
        r"no step but 1",
    ),
    "a runtime field": (
        "Search(name='x', recipes=(R,), space={'every.compile_encoder': Choice((True, False))})",
        r"'every\.compile_encoder'.* changes no result",
    ),
    "a condition that is no text": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when=True)})",
        r"A condition is a text, .*but got True",
    ),
    "a condition with a wrong name": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when='train.wave_prob > 0')})",
        r"'train\.clip_s'.*'train\.wave_prob' names no field: .*Perhaps 'train\.mixing\.wave_prob' is meant",
    ),
    "a condition that is no expression": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when='train.epochs >')})",
        r"A condition must be an expression",
    ),
    "a condition with a call": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when='open(train.epochs)')})",
        r"A condition has only .*'open\(train\.epochs\)' has more|A condition has only",
    ),
    "a condition that never holds": (
        "Search(name='x', recipes=(R,), space={'train.loss': Choice(('ce', 'bce')), 'train.clip_s': Range(5, 10, when=\"train.loss == 'cbe'\")})",
        r"""'train\.clip_s'.*its condition \"train\.loss == 'cbe'\" never holds""",
    ),
    "a condition that holds for no recipe": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when=\"recipe == 'sed_v3s'\")})",
        r"""\"recipe == 'sed_v3s'\" .*holds for no recipe""",
    ),
    "a condition that cannot be computed": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when='train.loss > 3'), 'train.loss': Choice(('ce', 'bce'))})",
        r"'train\.loss > 3' cannot be computed with train\.loss=",
    ),
    "conditions in a circle": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10, when='train.epochs > 2'), 'train.epochs': Range(1, 5, when='train.clip_s > 6')})",
        r"in a circle",
    ),
    "a condition across the border of a pool": (
        "Search(name='x', recipes=(R,), space={'pretrain.clip_s': Range(5, 10, when='train.epochs > 2'), 'train.epochs': Range(1, 5)}, pools={'pretrain': 2})",
        r"must depend on the pool's parameters alone",
    ),
    "a constraint alone": (
        "Search(name='x', recipes=(R,), space={}, constraints='train.clip_s > 5')",
        r"constraints of search 'x' must be a tuple of texts, .*but is 'train\.clip_s > 5'",
    ),
    "a constraint that is a function": (
        "Search(name='x', recipes=(R,), space={}, constraints=(lambda point: True,))",
        r"Constraint <function .*A condition is a text",
    ),
    "a constraint with a wrong name": (
        "Search(name='x', recipes=(R,), space={}, constraints=('train.clip > 5',))",
        r"Constraint 'train\.clip > 5' of search 'x': 'train\.clip' names no field: .*Perhaps 'train\.clip_s' is meant",
    ),
    "a constraint with a noise group that is not there": (
        "Search(name='x', recipes=(R,), space={}, constraints=('train.noise.4.prob > 0',))",
        r"Constraint 'train\.noise\.4\.prob > 0' of search 'x' names",
    ),
    "a constraint that nothing meets": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(5, 10)}, constraints=('train.clip_s > 20',))",
        r"None of 1000 random draws .*train\.clip_s > 20 must hold",
    ),
    "a constraint that the recipe breaks": (
        "Search(name='x', recipes=(R,), space={}, constraints=('train.clip_s > 20',))",
        r"None of 1000 random draws .*but got train\.clip_s=",
    ),
    "a constraint that cannot be computed": (
        "Search(name='x', recipes=(R,), space={}, constraints=('train.clip_s > None',))",
        r"'train\.clip_s > None' cannot be computed",
    ),
    "a pool that nothing meets": (
        "Search(name='x', recipes=(R,), space={'pretrain.clip_s': Range(5, 10), 'train.clip_s': Range(5, 10)}, pools={'pretrain': 3}, constraints=('pretrain.clip_s > 20',))",
        r"variant 1 of pool 'pretrain'",
    ),
    "a parameter in the shadow of others": (
        "Search(name='x', recipes=(R,), space={'train.epochs': Range(1, 3), 'train_ce.epochs': Range(1, 3), 'train_bce.epochs': Range(1, 3)})",
        r"'train\.epochs' never counts",
    ),
    "pools that are a list": (
        "Search(name='x', recipes=(R,), space={}, pools=['pretrain'])",
        r"pools of search 'x' must be a dict",
    ),
    "a small space with a mistyped field": (
        "Search(name='x', recipes=(R,), space={}, small_space={'train.clips': Range(5, 10)})",
        r"Parameter 'train\.clips'",
    ),
    "a small space that is no dict": (
        "Search(name='x', recipes=(R,), space={}, small_space=3)",
        r"small_space of search 'x' must be a dict",
    ),
    "a recipe without stages": (
        "Search(name='x', recipes=(replace(R, stages=()),), space={})",
        r"at least one stage",
    ),
    "a stage twice": (
        "Search(name='x', recipes=(replace(R, stages=(*R.stages, R.stages[0])),), space={})",
        r"none twice",
    ),
    "a recipe with an unknown encoder": (
        "Search(name='x', recipes=(replace(R, model=replace(R.model, encoder='resnet')),), space={})",
        r"model of timm .* but 'resnet' is not",
    ),
    "an unknown option of a search": (
        "Search(name='x', recipes=(R,), space={}, objective_='x')",
        r"TypeError in line",
    ),
    "a search that is not called": (
        "Search",
        r"SEARCH is the class Search itself: call it",
    ),
    "a key that is None": (
        "Search(name='x', recipes=(R,), space={None: Choice((1,))})",
        r"Parameter None .* names no field",
    ),
    "a name that is no text": ("Search(name=3, recipes=(R,), space={})", r"name of a search must be text, .*but is 3"),
    "no name": ("Search(name='', recipes=(R,), space={})", r"name of a search must be text, .*but is ''"),
    "a recipe without a model": (
        "Search(name='x', recipes=(replace(R, model=None),), space={})",
        r"Recipe\.model takes a ModelConfig, but got None",
    ),
    "a recipe without noise groups": (
        "Search(name='x', recipes=(replace(R, stages=tuple(replace(s, mixing=None) for s in R.stages)),), "
        "space={'train.mixing.wave_prob': Range(0, 1)})",
        r"StageConfig\.mixing takes a MixingConfig, but got None",
    ),
    "a recipe with a number of numpy": (
        "Search(name='x', recipes=(replace(R, stages=tuple(replace(s, epochs=__import__('numpy').int64(2)) for s in R.stages)),), space={})",
        r"StageConfig\.epochs takes a int, but got .*2",
    ),
    "a field that is like no other": (
        "Search(name='x', recipes=(R,), space={'train.lr': Range(1e-4, 1e-3)})",
        r"train has no field 'lr'\. It has: name, .*learning_rate",
    ),
    "a mistyped pool": (
        "Search(name='x', recipes=(R,), space={'pretrain.clip_s': Range(5, 6)}, pools={'pretrein': 2})",
        r"'pretrein': 2.*Perhaps 'pretrain' is meant",
    ),
    "a pool of millions": (
        "Search(name='x', recipes=(R,), space={'pretrain.clip_s': Range(5, 6)}, pools={'pretrain': 10**7})",
        r"at most 1000, but got 'pretrain': 10000000",
    ),
    "a range of clips that only has ends": (
        "Search(name='x', recipes=(C,), space={'train.clip_s': Range(5.0, 15.0)})",
        r"'train\.clip_s' .*can take the value 8\.82, .*stage train_ce: clip_s % 5 == 0",
    ),
    "an end that no float can hold": (
        "Search(name='x', recipes=(R,), space={'train.seed': Range(0, 10**400)})",
        r"'train\.seed': The bounds of a Range must be finite",
    ),
    "steps that cannot be told apart": (
        "Search(name='x', recipes=(R,), space={'train.clip_s': Range(3.0, 4.0, step=1e-300)})",
        r"at most 1,000,000,000,000,000 steps",
    ),
    "no search": ("3", "must define SEARCH"),
    "a missing name": ("Search(recipes=(R,), space={})", "TypeError"),
    "an error": ("1 / 0", "ZeroDivisionError"),
    "an exit": ("exit(7)", "SystemExit"),
    "an unknown import": ("__import__('no_such_module')", "ModuleNotFoundError"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_search_file_is_refused_with_its_rule(case, tmp_path, monkeypatch, capsys):
    """On the command line: exit code 2 and one message, and nothing is written."""
    text, rule = MALFORMED[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(f"{HEAD}\nSEARCH = {text}\n")
    with pytest.raises(InputError, match=rule):
        plan_request(SweepOptions(search="own.py")).check_search()
    assert tune_main(["--search", "own.py", "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["own.py"]


def test_a_syntax_error_names_the_file(tmp_path):
    (tmp_path / "own.py").write_text("SEARCH = (")
    with pytest.raises(InputError, match=r"own\.py must be importable, but raised SyntaxError"):
        load_search(str(tmp_path / "own.py"))
