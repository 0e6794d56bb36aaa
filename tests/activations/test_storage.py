import pytest
from activations.test_cache import contents, write
from pyarrow import fs

from cltdb.activations.cache import refer_to
from cltdb.activations.loader import open_source
from cltdb.activations.storage import Folder
from cltdb.errors import DataError


@pytest.fixture
def bucket(tmp_path):
    """A folder that is reached through a filesystem which is not the local one, as object storage is."""
    (tmp_path / "bucket").mkdir()
    return Folder("runs/cache", filesystem=fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem()))


def test_a_cache_in_object_storage_is_the_cache_on_disk(tmp_path, bucket):
    write(tmp_path / "local", codec="int8")
    write(bucket, codec="int8", ranks=[(0, 2)])
    write(bucket, codec="int8", ranks=[(1, 2)])
    assert not bucket.is_local
    assert contents(tmp_path / "bucket/runs/cache") == contents(tmp_path / "local")
    remote, local = (list(open_source(place, seed=0).batches(0, 3, 40)) for place in (bucket, tmp_path / "local"))
    assert all((left.x == right.x).all() for left, right in zip(remote, local, strict=True))


def test_damage_in_object_storage_is_named(tmp_path, bucket):
    write(bucket)
    shard = tmp_path / "bucket/runs/cache/train-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="runs/cache/train-00001.arrow: found .* another checksum"):
        open_source(bucket, seed=0).batch(0, 140)
    shard.unlink()
    with pytest.raises(DataError, match="runs/cache/train-00001.arrow: found no such shard"):
        open_source(bucket, seed=0).batch(0, 140)


def test_uris_work_where_paths_do(tmp_path):
    uri = f"file://{tmp_path}/cache"
    write(uri, codec="int8")
    refer_to(uri, directory=tmp_path / "artifact")
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == ["cache.json"]
    through, direct = (open_source(place, seed=0).batch(1, 40) for place in (tmp_path / "artifact", tmp_path / "cache"))
    assert (through.x == direct.x).all()


def test_a_place_that_cannot_be_reached_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="nowhere://bucket: found .*; expected a URI that pyarrow's filesystems open"):
        Folder("nowhere://bucket")
