"""What several tests use: one thread a process, an S3 endpoint on this machine, recordings and a recipe that train in a second."""

import os
import socket
import uuid

import pytest

# Before torch is imported, and for every process that a test starts: results are the same bits for the same number of threads only.
os.environ["OMP_NUM_THREADS"] = "1"


RAY_ALONE = "tests/sweeps/run/test_whole_sweep.py"
"""Half of what the tests that start Ray take: one process runs this file, and one the others."""


def pytest_collection_modifyitems(items):
    """Begin with the tests that start Ray: where there are several processes, two of them have enough to do with these."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Return one process more than there are cores: tests wait a third of their time, for leases, servers and processes of Ray."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of several processes (`-n auto`), one runs the tests of a file, which share fixtures, and two all files with tests that start Ray.

    pytest-xdist's own groups (`--dist loadgroup`) do nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndRay(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            if file == RAY_ALONE:
                return file
            return "ray" if "pytest.mark.ray" in (config.rootpath / file).read_text() else file

    config.option.loadscopereorder = False
    return FilesAndRay(config, log)


@pytest.fixture(scope="session")
def s3_endpoint():
    """A moto server; its access keys are in the environment while it runs."""
    server_module = pytest.importorskip("moto.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    yield f"127.0.0.1:{port}"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.fixture
def s3_uri(s3_endpoint):
    """An empty bucket as a storage URI."""
    import boto3

    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=f"http://{s3_endpoint}", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/sweeps?endpoint_override=http://{s3_endpoint}&region=us-east-1"


@pytest.fixture(scope="session")
def tone_data(tmp_path_factory):
    """Three species of different pitch, a recording each by six authors, as training data; two of them are targets."""
    import numpy as np
    import pandas as pd
    import soundfile

    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.dataset import load_dataset
    from birdclef_core.stages.training_data import TrainingData

    root = tmp_path_factory.mktemp("tones")
    generator = np.random.default_rng(0)
    rows = []
    for pitch_hz, species in ((1000, "low"), (3000, "mid"), (9000, "top")):
        for number in range(6):
            time_T = np.arange(32_000) / 32_000
            wave_T = 0.3 * np.sin(2 * np.pi * pitch_hz * time_T) + 0.02 * generator.standard_normal(32_000)
            path = root / "train_audio" / species / f"{species}{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave_T.astype(np.float32), 32_000)
            secondary = "['low']" if species == "mid" and number == 0 else "[]"
            rows.append((species, secondary, f"{species}/{path.name}", f"Author {number}", 4.0))
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "filename", "author", "rating"])
    table.to_csv(root / "train.csv", index=False)
    (root / "target_species.txt").write_text("low\ntop\n")
    dataset = load_dataset(root)
    return TrainingData(dataset=dataset, cache=build_cache(dataset, tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tiny_recipe():
    """A recipe that trains in a second: a small encoder, small spectrograms, clips of one second."""
    from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig

    model = ModelConfig(
        encoder="mobilenetv3_small_050",
        spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False),
        drop_path_rate=0.0,
    )
    common = {"epochs": 3, "learning_rate": 3e-3, "clip_s": 1.0, "batch_size": 4, "clips_per_epoch": 8}
    stages = (
        StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=2**40, **common),
        StageConfig(name="train_bce", label_space="target", loss="bce", seed=2, **common),
        StageConfig(name="finetune", label_space="target", loss="bce", seed=3, freeze_encoder=True, **common),
    )
    return Recipe(name="tiny", model=model, stages=stages)


@pytest.fixture(scope="session")
def heads(tmp_path_factory, tiny_recipe, tone_data):
    """Storages in each of which a sweep `s` trained a head on the tones: `timm` by a timm encoder, `onnx` by a file; to be read only."""
    from made_up_heads import head_chain, train_heads_sweep, write_encoder

    from birdclef_core.store.storage import Storage

    root = tmp_path_factory.mktemp("heads")
    file = write_encoder(root / "tiny.onnx", 12_000, 24_000)
    chains = {
        "timm": head_chain(tiny_recipe, tone_data),
        "onnx": head_chain(tiny_recipe, tone_data, file, rate_hz=24_000, head_hidden=8),
    }
    for name, chain in chains.items():
        train_heads_sweep(Storage.parse(str(root / name)), chain, tone_data)
    file.unlink()  # what is deployed needs only what is in the store
    return {name: (Storage.parse(str(root / name)), chain) for name, chain in chains.items()}


@pytest.fixture(scope="session")
def taught(tmp_path_factory, tiny_recipe, tone_data):
    """A storage in which a sweep `s` trained a student of a head on embeddings by an ONNX encoder that is gone, and its chain; to be read only."""
    from made_up_heads import taught_chain, train_heads_sweep, write_encoder

    from birdclef_core.store.storage import Storage

    root = tmp_path_factory.mktemp("taught")
    file = write_encoder(root / "tiny.onnx")
    storage, chain = Storage.parse(str(root / "out")), taught_chain(tiny_recipe, tone_data, file)
    train_heads_sweep(storage, chain, tone_data)
    file.unlink()
    return storage, chain
