"""IRN's published names and ours."""

from __future__ import annotations

from .converter import Converter, register

# Published prefix -> ours. A network lists most of its tensors under two to four names.
TABLE = {
    'resnet50': 'backbone',
    **{f'fc_edge{i + 1}': f'edge_branches.{i}' for i in range(5)},
    'fc_edge6': 'edge_out',
    **{f'fc_dp{i + 1}': f'displacement_branches.{i}' for i in range(5)},
    'fc_dp6': 'displacement_merge',
    'fc_dp7.0': 'displacement_out.0.0',
    'fc_dp7.1': 'displacement_out.0.1',
    'fc_dp7.3': 'displacement_out.1',
    'mean_shift.running_mean': 'mean_displacement',
}
ALIAS = 'another name of a tensor that is listed under resnet50, fc_edge, fc_dp or mean_shift'
PAIRS = 'computed from the radius of the pairs'
LEFT_OUT = {
    **dict.fromkeys(
        [*(f'stage{i}' for i in range(1, 6)), 'backbone', 'edge_layers', 'dp_layers'], ALIAS
    ),
    'fc_dp7.4': ALIAS,
    'disp_target': PAIRS,
    'path_indices{i}': PAIRS,
}

convert_irn = register(
    Converter(name='irn', method='IRN', models=('irn_r50',), table=TABLE, left_out=LEFT_OUT)
)
