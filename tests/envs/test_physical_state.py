"""Names and values of physical states, against MuJoCo's and dm_control's own names."""

import numpy as np
import pytest

import envs

pytestmark = pytest.mark.usefixtures("opengl")

MODEL = """
<mujoco>
  <worldbody>
    <body><freejoint name="root"/><geom size=".1"/>
      <body><joint name="knee" type="hinge" range="-90 90" limited="true"/><geom size=".1"/>
        <body><joint type="hinge"/><geom size=".1"/>
          <body><joint name="shoulder" type="ball"/><geom size=".1"/></body>
        </body>
      </body>
    </body>
    <body><joint name="rail" type="slide"/><geom size=".1"/></body>
  </worldbody>
</mujoco>
"""


def test_every_kind_of_joint() -> None:
    import mujoco

    from envs.physical_state import JointState

    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    data.qpos = np.arange(model.nq) / 10  # root 0 to 6, knee 7, the nameless one 8, shoulder 9 to 12, rail 13
    data.qvel = -np.arange(model.nv) / 10  # root 0 to 5, knee 6, the nameless one 7, shoulder 8 to 10, rail 11
    joints = JointState(model)
    expected = {f"position/root/{number}": number / 10 for number in range(7)}
    expected |= {"position/knee": 0.7, "position/joint_2/sin": np.sin(0.8), "position/joint_2/cos": np.cos(0.8)}
    expected |= {f"position/shoulder/{number}": (9 + number) / 10 for number in range(4)}
    expected |= {"position/rail": 1.3}
    expected |= {f"velocity/root/{number}": -number / 10 for number in range(6)}
    expected |= {"velocity/knee": -0.6, "velocity/joint_2": -0.7}
    expected |= {f"velocity/shoulder/{number}": -(8 + number) / 10 for number in range(3)}
    expected |= {"velocity/rail": -1.1}
    assert joints.names == tuple(expected)
    assert np.allclose(joints.read(data), list(expected.values()), rtol=0, atol=1e-15)


def test_state_names_match_dm_controls() -> None:
    env = envs.make("cartpole-swingup", size=8, stack=1, action_repeat=8, quality="fast")
    env.reset(seed=1)
    for _ in range(5):
        env.step(np.ones(1, np.float32))
    named = env.env._env.physics.named.data  # type: ignore[attr-defined]
    angle = named.qpos["hinge_1"].item()
    state = dict(zip(env.state_names, env.physical_state(), strict=True))
    assert state == {
        "position/slider": named.qpos["slider"].item(),
        "position/hinge_1/sin": np.sin(angle),
        "position/hinge_1/cos": np.cos(angle),
        "velocity/slider": named.qvel["slider"].item(),
        "velocity/hinge_1": named.qvel["hinge_1"].item(),
    }
    kept = env.physical_state()
    env.step(np.ones(1, np.float32))
    assert not np.array_equal(kept, env.physical_state())
    env.close()
