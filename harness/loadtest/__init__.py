"""What is behind the load door, in two processes: the one makes the load, the other keeps what is under it.

The process of Locust, from the top down:

    locust_run        one process's runs, from the first event to the exit code; locust_page is its page
    run_state         what state a run is in, and what may happen in it
    stack_order       what is to be brought up
    locust_table      what Locust is shown; exit_report is what the process ends with
    options           what can be asked for, and what contradicts itself
    run_legs          what is sent when; capacity_search searches, leg by leg
    load_processes    who sends: one process alone, or a master's workers
    generators        makes each arrival when it is due; arrivals says when that is
    publish_pipeline  how its senders publish
    worker_messages   what a Locust master and its workers tell each other
    stack_client      the other process, seen from here

The process that owns the stack, which does without Locust:

    stack_process          takes orders
    stack_under_load       one stack under load: brought up, measured, broken, drained, audited
    scenarios_together     what several scenarios need of one stack
    live_figures, verdict  the figures, and the verdict

Both have messages, which is what they tell each other.
"""
