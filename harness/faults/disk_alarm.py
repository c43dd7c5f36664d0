"""A fault: a broker has too little free disk space, by its own limit."""

from harness.containers.broker_node import Alarm
from harness.faults.broker_alarm import BrokerAlarm


class DiskAlarm(BrokerAlarm):
    """A broker whose free disk space is below its limit, because the limit is above any disk; see `BrokerAlarm`."""

    kind = "disk-alarm"
    doing = "put into a disk alarm"
    alarm = Alarm.DISK
