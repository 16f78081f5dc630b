"""People's labels: the labelling session behind the labelling page, and how well a grader agrees with them."""
