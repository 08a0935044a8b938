import pytest
from model_folders import SHAPES, SMALL, hugging_face_tensors, write_hugging_face


@pytest.fixture(params=SHAPES)
def config(request):
    return SHAPES[request.param]


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture
def small_tensors():
    return hugging_face_tensors(SMALL)


@pytest.fixture
def small_folder(tmp_path, small_tensors):
    return write_hugging_face(tmp_path / "small", SMALL, small_tensors)
