e2e_test(e2e_limits fast test_limits.py TIMEOUT 200)
