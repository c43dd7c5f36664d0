"""An example app. Each scenario is a folder with its tasks, their expected outcome, and the drive."""
