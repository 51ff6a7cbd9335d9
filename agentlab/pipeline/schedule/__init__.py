"""Which job runs when and which models are in memory meanwhile, so that loading takes the least time.

Pure: the jobs, what models take, and the room for them are told; see `plan.schedule`.
"""
