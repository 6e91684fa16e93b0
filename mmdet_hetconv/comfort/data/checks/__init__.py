"""What is wrong or doubtful in a data set, found before a run."""
