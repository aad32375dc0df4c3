e2e_test(e2e_sampling fast test_sampling.py)
