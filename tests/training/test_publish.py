"""What `publish.py` leaves is what `unsample models fetch` checks."""

import hashlib
import json

import networks
import publish
import pytest
import torch

from unsample.models.download import LIST


@pytest.fixture
def trained(recipe, tmp_path):
    """A toy model, its card and a picture."""
    torch.manual_seed(0)
    network = networks.build(recipe)
    networks.save_pipeline(tmp_path / "release", recipe, network, dict(network.named_parameters()), dtype=torch.float16)
    (tmp_path / "card.md").write_text("# A toy\n")
    (tmp_path / "samples.png").write_bytes(b"picture")
    return tmp_path


def test_every_file_is_listed_with_its_hash(trained, monkeypatch, capsys):
    """Reference: hashlib, file by file."""
    monkeypatch.setattr("sys.argv", f"publish {trained}/release {trained}/card.md {trained}/toy {trained}/samples.png".split())
    publish.main()
    files = {path.relative_to(trained / "toy").as_posix() for path in (trained / "toy").rglob("*") if path.is_file()}
    assert {"README.md", "samples.png", "classes.json", "unet/diffusion_pytorch_model.safetensors", LIST} <= files
    text = (trained / "toy" / LIST).read_bytes()
    assert capsys.readouterr().out == f'files = "{hashlib.sha256(text).hexdigest()}"\n'
    for name in files - {LIST}:
        assert hashlib.sha256((trained / "toy" / name).read_bytes()).hexdigest() in text.decode()
        assert name in text.decode()
    assert (trained / "toy" / "README.md").read_text() == "# A toy\n"
    assert json.loads((trained / "toy" / "classes.json").read_text())["null"] == 3


def test_a_file_too_large_for_a_repository_is_refused_before_anything_is_written(trained, monkeypatch):
    monkeypatch.setattr(publish, "LARGEST", 1000)
    with pytest.raises(ValueError, match="save the model in shards"):
        publish.publish(trained / "release", trained / "card.md", trained / "toy")
    assert not (trained / "toy").exists()
