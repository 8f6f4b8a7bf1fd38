##! A Zeek node's side of the channel to its watchpost agent. It is loaded behind all other scripts, and does nothing unless
##! the agent has said in the environment where its two files are.
##!
##! Up goes a line for each thing to tell: its number, its kind, and what belongs to it, mostly as JSON. Down comes a line for
##! each question: its number, a verb, and an argument. Both are regular files, so whether anybody reads them is nothing to
##! the node.

@load base/frameworks/input

@ifndef ( to_json )
@load base/utils/json
@endif

module Watchpost;

export {
	## What comes of a question: a value as JSON, or why there is none.
	type Answer: record {
		value: string &optional;
		error: string &optional;
	};

	## Who answers which verb.
	const answerers: table[string] of function(argument: string): Answer = table() &redef;

	## So many reports are told at once; more of them one by one, with the heartbeats.
	const most_reports = 50 &redef;
	## Longer texts of reports are cut, in bytes.
	const longest_report = 1000 &redef;
	## Longer values are not told, in bytes.
	const longest_value = 1048576 &redef;
	## Values are told in pieces of this many bytes.
	const piece = 4000 &redef;
}

type Hello: record {
	contract: count;
	version: string;
	pid: count;
};

type Beat: record {
	received: count;
	dropped: count;
	link: count;
	bytes: count;
	memory: count;
	waiting: count;
	held_errors: count;
	held_warnings: count;
};

type Report: record {
	message: string;
	location: string;
};

type Question: record {
	line: string;
};

global news: file;
global is_open = F;
global pause = 5 sec;
global told = 0;
global room = 0;
global held_errors = 0;
global held_warnings = 0;
global beat: event();

function say(kind: string, what: string)
	{
	if ( ! is_open )
		return;
	++told;
	print news, fmt("%d %s %s\n", told, kind, what);
	}

function counted(): string
	{
	local packets = get_net_stats();
	local events = get_event_stats();
	local waiting = events$queued > events$dispatched ? events$queued - events$dispatched : 0;
	local now = Beat($received=packets$pkts_recvd, $dropped=packets$pkts_dropped, $link=packets$pkts_link,
	    $bytes=packets$bytes_recvd, $memory=get_proc_stats()$mem, $waiting=waiting, $held_errors=held_errors,
	    $held_warnings=held_warnings);
	return to_json(now);
	}

function shortened(text: string): string
	{
	return |text| > longest_report ? sub_bytes(text, 1, longest_report) : text;
	}

## Whether there is room for another report.
function has_room(): bool
	{
	if ( room == 0 )
		return F;
	--room;
	return T;
	}

function report(kind: string, message: string, location: string)
	{
	say(kind, to_json(Report($message=shortened(message), $location=shortened(location))));
	}

function answer(number: string, given: Answer)
	{
	if ( given?$error )
		{
		say("failure", fmt("%s %s", number, to_json(given$error)));
		return;
		}
	if ( |given$value| > longest_value )
		{
		say("failure", fmt("%s %s", number, to_json(fmt("its value is longer than %d bytes", longest_value))));
		return;
		}
	local at = 1;
	while ( at <= |given$value| )
		{
		say("part", fmt("%s %s", number, sub_bytes(given$value, at, piece)));
		at += piece;
		}
	say("answer", number);
	}

function get_id_value(name: string): Answer
	{
	local value = lookup_ID(name);
	if ( type_name(value) == "string" )
		{
		local text = cat(value);
		if ( text == "<unknown id>" || text == "<no ID value>" )
			return Answer($error=sub_bytes(text, 2, |text| - 2));
		}
	return Answer($value=to_json(value));
	}

redef answerers += {
	["get_id_value"] = get_id_value,
};

event Watchpost::asked(description: Input::EventDescription, kind: Input::Event, line: string)
	{
	local words = split_string1(line, / /);
	if ( |words| < 2 )
		return;
	local rest = split_string1(words[1], / /);
	local argument = |rest| > 1 ? rest[1] : "";
	if ( rest[0] in answerers )
		answer(words[0], answerers[rest[0]](argument));
	else
		answer(words[0], Answer($error=fmt("dispatch %s unknown", rest[0])));
	}

event Watchpost::beat()
	{
	if ( room < most_reports )
		++room;
	say("beat", counted());
	held_errors = 0;
	held_warnings = 0;
	if ( ! zeek_is_terminating() )
		schedule pause { Watchpost::beat() };
	}

event reporter_error(t: time, msg: string, location: string) &priority=-5
	{
	if ( has_room() )
		report("error", msg, location);
	else
		++held_errors;
	}

event reporter_warning(t: time, msg: string, location: string) &priority=-5
	{
	if ( has_room() )
		report("warning", msg, location);
	else
		++held_warnings;
	}

event zeek_init() &priority=1000
	{
	local path = getenv("WATCHPOST_NEWS");
	if ( path == "" )
		return;
	news = open_for_append(path);
	if ( ! active_file(news) )
		return;
	enable_raw_output(news);
	set_buf(news, F);
	is_open = T;
	room = most_reports;
	}

event zeek_init() &priority=-1000
	{
	if ( ! is_open )
		return;
	local every = getenv("WATCHPOST_HEARTBEAT");
	if ( every != "" )
		pause = double_to_interval(to_double(every));
	say("hello", to_json(Hello($contract=1, $version=zeek_version(), $pid=getpid())));
	event Watchpost::beat();
	local questions = getenv("WATCHPOST_QUESTIONS");
	if ( questions != "" )
		Input::add_event([$source=questions, $name="watchpost-questions", $reader=Input::READER_RAW, $mode=Input::STREAM,
		    $fields=Question, $ev=Watchpost::asked, $want_record=F]);
	}

event zeek_done() &priority=-1000
	{
	say("end", "{}");
	if ( is_open )
		close(news);
	is_open = F;
	}
