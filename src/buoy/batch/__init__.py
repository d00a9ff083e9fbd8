"""A model over a whole bucket, by many workers, killed at any moment, every object exactly once.

How it works, on one page:

1.  A run lives in the bucket of its results, below `<out>/.runs/<run>/`, as small objects that are created once and
    never changed (`layout`, `ledger`). There is no database and no server; to resume is to list and read.
2.  `manifest` lists the source, or what somebody's list names (`listing`), into Parquet shards in the order of keys:
    every object becomes a row, pinned by its etag. `cells` cuts the rows into cells of about a minute by what a sample
    of them took.
3.  *Pilots* (`pilot`) are processes of some engine (`engines`: this machine, OSCAR, Kubernetes). Each pulls cells:
    it creates `claim/<cell>-<epoch>`, runs the rows, stores the result rows under a key that is nobody else's, and
    creates `fin/<cell>`, which names them. Whoever creates `fin` first has decided the cell; all others were in vain.
4.  A pilot overwrites its heartbeat. Others see, each on its own clock (`lease`), that it has not moved for long, and
    claim the cell with the next epoch. Who was wrongly taken for dead costs work done twice, never a wrong row.
5.  A stopped pilot ends its cell as a split: what it has done is committed, the rest is a new cell. A cell that has
    killed two pilots is halved, so a picture that nobody survives is found and becomes one failed row. Mostly it does
    not come so far: the network runs in a child process (`isolate`) that may crash, hang or outgrow its memory.
6.  The *coordinator* (`coordinator`) starts pilots and watches. It can be killed, or be there twice: it only creates
    too. When leaves cover all rows it writes `seal.json`, the list of one attempt for each leaf, and `merge` writes
    the results from that list alone: the same seal gives the same bytes. A retry is a run of the failed rows, whose
    results are laid over those of the run below (`overlay`); a catch-up is a run of what is new since (`since`).
7.  What people say (pause, resume, cancel, how many pilots) is the chain `ctl/`, which pilots obey by themselves. A
    pilot that finds something fatal (wrong credentials, other weights, no room), that nearly everything fails, or that
    the heartbeats add up to more than the run may take (`budget`) pauses the run.
8.  On a store whose create-only puts cannot be trusted (`probe`) the coordinator does what is said of claim and `fin`
    in 3 for the pilots (`division`): then every key has one writer.

Safety rests on 3 and 6, and does not need the store's conditions to hold: tests/batch/model.py visits every order of
events, tests/batch/simulation.py plays this very code against lost replies, stale listings, stalls and kills.
"""
