"""The physical state of a MuJoCo model, number by number: joint positions and velocities, each with a name."""

import mujoco
import numpy as np
from numpy.typing import NDArray

_COORDINATES = {  # number of position and velocity coordinates of each joint type
    mujoco.mjtJoint.mjJNT_FREE: (7, 6),
    mujoco.mjtJoint.mjJNT_BALL: (4, 3),
    mujoco.mjtJoint.mjJNT_SLIDE: (1, 1),
    mujoco.mjtJoint.mjJNT_HINGE: (1, 1),
}


class JointState:
    """Reads positions, then velocities, joint by joint.

    A joint with one degree of freedom is named `position/<joint>` and `velocity/<joint>`; the coordinates of others are
    numbered, `position/<joint>/0`, ... (a free joint: position, then quaternion; angular velocities last). An unlimited
    hinge looks the same after each full turn, so its position is `position/<joint>/sin` and `position/<joint>/cos`.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        positions: list[str] = []
        velocities: list[str] = []
        plain, turning = [], []
        for number in range(model.njnt):
            joint, kind = model.joint(number).name or f"joint_{number}", mujoco.mjtJoint(model.jnt_type[number])
            first = int(model.jnt_qposadr[number])
            in_position, in_velocity = _COORDINATES[kind]
            if kind == mujoco.mjtJoint.mjJNT_HINGE and not model.jnt_limited[number]:
                turning.append((len(positions), first))
                positions += [f"position/{joint}/sin", f"position/{joint}/cos"]
            else:
                plain += [(len(positions) + offset, first + offset) for offset in range(in_position)]
                positions += _numbered(f"position/{joint}", in_position)
            velocities += _numbered(f"velocity/{joint}", in_velocity)
        self.names = (*positions, *velocities)
        """Name of each number of the state."""
        self._to_plain, self._plain = np.array(plain, int).reshape(-1, 2).T
        self._to_turning, self._turning = np.array(turning, int).reshape(-1, 2).T
        self._positions = len(positions)

    def read(self, data: mujoco.MjData) -> NDArray[np.float64]:
        """The state of `data`: a new array `(D,)` in the order of `names`, in meters, radians and seconds."""
        state = np.empty(len(self.names))
        state[self._to_plain] = data.qpos[self._plain]
        angles = data.qpos[self._turning]
        state[self._to_turning], state[self._to_turning + 1] = np.sin(angles), np.cos(angles)
        state[self._positions :] = data.qvel
        return state


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}/{number}" for number in range(count)]
