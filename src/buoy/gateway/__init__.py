"""A small OSCAR on one machine: `buoy up`.

An object lands in a bucket → event (`events`, `watch`, `minio`) → row in the queue (`state`) → a slot
(`slots`, `dispatch`) → the service's script (`run_script`) or its resident worker (`run_warm`) → objects
in the output path (`deliver`). `app` serves OSCAR's API and the page; `serve` ties all of it together.
"""
