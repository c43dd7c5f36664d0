"""What is behind the load door, in two processes: the one makes the load, the other keeps what is under it.

The process of Locust, from the top down:

    conduct         one process's runs, from the first event to the exit code; tab is its page
    options         what can be asked for, and what contradicts itself
    legs            what is sent when; knee searches, leg by leg
    fleet           who sends: one process alone, or a master's workers
    generator       makes each arrival when it is due; pace says when that is
    pipeline        how its senders publish
    keeper_process  the other process, seen from here

The keeper's process, which does without Locust:

    keeper          takes orders, an `order` to bring something up among them
    loaded          one stack under load: brought up, measured, broken, drained, audited
    injector        the faults, each at its time
    measure, judge  the figures, and the verdict
"""
