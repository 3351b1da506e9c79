use strict;
my %words;
for my $n (1 .. 20000) { $words{"w" . ($n * 7919 % 1009)} += $n; }
print join(" ", map { "$_=$words{$_}" } (sort keys %words)[0 .. 9]), "\n";
my $text = join(",", 1 .. 5000);
(my $other = $text) =~ s/(\d)(\d)(?=,)/$2$1/g;
print length($other), " ", unpack("%32C*", $other), "\n";
print unpack("H*", pack("NnCwd>f<q", 3000000000, 65535, 200, 1234567, 3.14159, 2.5, -5)), "\n";
printf "%.17g %.17g %.17g %g\n", sqrt(2), atan2(1, 3), 10 ** 0.3, 1e21 / 3;
my ($a, $b) = (0, 1);
($a, $b) = ($b, $a + $b) for 1 .. 90;
print "$a ", 2 ** 53 + 1, " ", int(-7.5), " ", -7 % 3, "\n";
print join(" ", sort { $a <=> $b } map { ($_ * 48271) % 2147483647 } 1 .. 12), "\n";
