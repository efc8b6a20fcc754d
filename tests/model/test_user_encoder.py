"""What the user tower makes of its parts; what holds for the whole is in test_multi_interest."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext, UserEmbedding

MakeModel = Callable[..., MultiInterestModel]
MakeInputs = Callable[..., dict[str, Tensor]]


def encode(model: MultiInterestModel, inputs: dict[str, Tensor]) -> UserEmbedding:
    context = UserContext(inputs["item"][..., 0] != 0, *(inputs[name] for name in UserContext._fields[1:]))
    return model.users(model.items(inputs["item"]), context)


def test_shapes(make_model: MakeModel, make_inputs: MakeInputs) -> None:
    user = encode(make_model(), make_inputs([6, 2, 0]))
    assert (user.interests.shape, user.heads.shape, user.weights.shape) == ((3, 2, 8), (3, 4, 8), (3, 4, 6))
    torch.testing.assert_close(user.heads.norm(dim=-1), torch.ones(3, 4))


def test_weights_are_the_joint_probability_of_heads_and_clicks(make_model: MakeModel, make_inputs: MakeInputs) -> None:
    user = encode(make_model(), make_inputs([6, 2, 0]))
    assert (user.weights >= 0).all()
    torch.testing.assert_close(user.weights.sum((1, 2)), torch.tensor([1.0, 1.0, 0.0]))


def test_a_vector_is_made_of_adjacent_heads(make_model: MakeModel, make_inputs: MakeInputs) -> None:
    """With one head silenced, only the vector it belongs to changes."""
    model, inputs = make_model(per_path_dense=True), make_inputs([6])
    before = encode(model, inputs)
    with torch.no_grad():
        for layer in model.users.disentangle.transform:
            if not isinstance(layer, nn.Tanh):
                layer.weight[2] += 1.0  # of the third head, the first of the second vector
    after = encode(model, inputs)
    assert torch.equal(before.interests[:, 0], after.interests[:, 0])
    assert not torch.allclose(before.interests[:, 1], after.interests[:, 1])


def test_the_position_prior_weighs_the_categories_of_recent_clicks(
    make_model: MakeModel, make_inputs: MakeInputs
) -> None:
    model, inputs = make_model(), make_inputs([6])
    plain = encode(model, inputs).interests
    with torch.no_grad():
        model.users.position_prior[2:] += 9.0  # not recent
        unmoved = encode(model, inputs).interests
        model.users.position_prior[0] += 9.0
        moved = encode(model, inputs).interests
    torch.testing.assert_close(plain, unmoved, rtol=0, atol=1e-4)
    assert not torch.allclose(plain, moved, atol=1e-4)
