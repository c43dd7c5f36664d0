"""An app as its users write it. Each scenario is a folder, with the tasks, what is expected of them, and the drive."""
