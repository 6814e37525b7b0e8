"""Why a generator inverts as it does: what its features, depths and samples are like.

Modules: `setup` composes a job, `reach` and `sample` measure, `result` is what diagnose.json
holds, `table` and `figure` show it, `render` draws pictures for reports. Inverters themselves live
in rtil.inverters. To add a measurement, compute it in a module of its own, give it a dataclass in
`result`, and show it in `table`.
"""
