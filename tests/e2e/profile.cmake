# The latency model's profile: taken, kept, shown, refused; and the line per sweep.
e2e_test(e2e_profile fast test_profile.py TIMEOUT 180)
